"""Two payers over HTTP: what one stored changes nothing that another is told, by any verb."""

import re
from typing import Any

import httpx
import pytest

from engine.selling.visits import Visits
from engine.storage.limits import Limits
from tests.gate.stall import GET, Stall, decoded, encoded, heard
from tests.gate.test_visits import offered, signed
from tests.payments.paying import Till as Facility

pytestmark = pytest.mark.anyio

THEIRS, NOBODYS = "theirs", "nobody"
assert len(THEIRS) == len(NOBODYS)
VALUE = "a secret of the first"
VERBS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/store/{key}", {}),
    ("DELETE", "/v1/store/{key}", {}),
    ("GET", "/v1/store?prefix={key}", {}),
    ("POST", "/v1/store/batch/get", {"json": {"keys": ["{key}"]}}),
    ("POST", "/v1/store/batch/delete", {"json": {"keys": ["{key}"]}}),
    ("PUT", "/v1/store/{key}", {"content": "one too long"}),
    ("PUT", "/v1/store/{key}", {"content": "mine"}),
    ("GET", "/v1/store/{key}", {}),
    ("POST", "/v1/store/batch/set", {"json": {"entries": {"{key}": "2", "b": "3", "c": "4"}}}),
    ("DELETE", "/v1/store/{key}", {}),
    ("GET", "/v1/store?cursor={key}", {}),
]


def named(value: Any, key: str) -> Any:
    """With the key where it goes."""
    if isinstance(value, dict):
        return {named(name, key): named(each, key) for name, each in value.items()}
    if isinstance(value, list):
        return [named(each, key) for each in value]
    return value.replace("{key}", key) if isinstance(value, str) else value


def told(answer: httpx.Response, key: str) -> tuple[int, dict[str, str], str]:
    """All that is told, but which key it was and which transaction paid."""
    headers = dict(answer.headers)
    for name in ("payment-response", "payment-required"):
        if name in headers:
            said = decoded(headers[name])
            said.pop("transaction", None)
            for each in (said.get("extensions") or {}).values():
                each["info"] = sorted(each["info"])
            headers[name] = repr(said).replace(key, "{key}")
    text = re.sub(rf"\b{key}\b", "{key}", answer.text)
    return answer.status_code, headers, text


async def everything(stall: Stall, key: str) -> list[str]:
    """What somebody new hears who does all there is, unpaid, paying, and signing in."""
    stall.stranger()
    heard = []
    for method, path, how in VERBS:
        asked = method, named(path, key), named(how, key)
        heard.append(told(await stall.ask(asked[0], asked[1], **asked[2]), key))
        heard.append(told(await stall.buy(asked[0], asked[1], **asked[2]), key))
    for path in (f"/v1/store/{key}", "/v1/store"):
        entering = signed(stall, await offered(stall, path))
        heard.append(told(await stall.ask("GET", path, headers=entering), key))
    assert all(VALUE not in str(each) for each in heard)
    return [repr(each).replace(stall.facility.payer.address, "{payer}") for each in heard]


async def test_no_verb_tells_of_what_another_payer_stored(
    facility: Facility, tmp_path: Any
) -> None:
    stall = Stall(facility, tmp_path, Limits(payer_entries_max=2, value_bytes_max=100))
    await stall.close()
    stall.open(visits=Visits("http://stall.test"))
    stored = await stall.buy("PUT", f"/v1/store/{THEIRS}", content=VALUE.encode())
    assert heard(stored) == (200, None)
    first = facility.payer
    assert await everything(stall, THEIRS) == await everything(stall, NOBODYS)
    facility.payer = first
    assert (await stall.buy("GET", f"/v1/store/{THEIRS}")).text == VALUE, "and nobody changed it"
    await stall.close()


async def test_however_a_payer_is_written_it_is_the_same_store(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/a", content=b"1")
    payer = stall.facility.payer.address
    found = []
    for spelled in (payer, payer.lower(), "0x" + payer[2:].upper(), "0X" + payer[2:]):
        sent = decoded(stall.sign(units=GET))
        sent["payload"]["authorization"]["from"] = spelled
        answer = await stall.ask("GET", "/v1/store/a", encoded(sent))
        found.append((answer.status_code, answer.text if answer.status_code == 200 else ""))
    assert found[:2] == [(200, "1")] * 2
    assert set(found[2:]) <= {(200, "1"), (402, "")}, "never another's"
    for other in ("0x" + "0" * 24 + payer[2:], payer[:-1], f"{payer[:-1]}\u0430"):
        sent = decoded(stall.sign(units=GET))
        sent["payload"]["authorization"]["from"] = other
        assert (await stall.ask("GET", "/v1/store/a", encoded(sent))).status_code == 402


class Cache:
    """A shared cache by the book (RFC 9111, 3 and 4.1), in front of an application."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)
        self.kept: dict[str, httpx.Response] = {}
        self.hits = 0

    async def get(self, path: str, payment: str | None = None) -> httpx.Response:
        if path in self.kept:
            self.hits += 1
            return self.kept[path]
        headers = {} if payment is None else {"PAYMENT-SIGNATURE": payment}
        async with httpx.AsyncClient(transport=self._transport, base_url="http://s.test") as http:
            answer = await http.get(path, headers=headers)
        control = answer.headers.get("Cache-Control", "")
        if "private" not in control and "no-store" not in control and answer.status_code == 200:
            self.kept[path] = answer
        return answer


async def test_a_cache_in_front_gives_nobody_what_another_paid_for(stall: Stall) -> None:
    cache = Cache(stall.app)
    for _ in range(2):
        assert (await cache.get("/openapi.json")).status_code == 200
    assert cache.hits == 1, "what may be kept is kept"
    await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert (await cache.get("/v1/store/a", stall.sign(units=GET))).text == "1"
    assert heard(await cache.get("/v1/store/a")) == (402, "payment_required")
    assert (list(cache.kept), cache.hits) == (["/openapi.json"], 1)
    assert stall.transfers() == 2
