"""What is paid for is stored and got, for the payer alone; what would be refused is not paid."""

import asyncio
from typing import Any

import pytest
from x402.http.utils import decode_payment_response_header

from engine.storage.limits import Limits
from tests.gate.stall import GET, PUT, Stall, decoded, heard, offer_of
from tests.gate.test_pending import Liar, believes
from tests.payments.paying import PAYEE
from tests.payments.paying import Till as Facility

pytestmark = pytest.mark.anyio

IN_PATHS = ["../a", "..", "é", "a\n", "\0", "\ufffd", "?x#y"]
KEYS = [*IN_PATHS, "a", "a/b", ".", "%2e", "e\u0301", "\n", "batch/get"]


async def test_nobody_is_served_unpaid_and_the_offer_is_the_servers_own(stall: Stall) -> None:
    for method, path, how, units in (
        ("PUT", "/v1/store/a", {"content": b"1"}, PUT),
        ("GET", "/v1/store/a", {}, GET),
        ("DELETE", "/v1/store/a", {}, PUT),
        ("GET", "/v1/store", {}, GET),
        ("POST", "/v1/store/batch/get", {"json": {"keys": ["a", "b", "a"]}}, 2 * GET),
        ("POST", "/v1/store/batch/set", {"json": {"entries": {"a": "", "b": ""}}}, 2 * PUT),
        ("POST", "/v1/store/batch/delete", {"json": {"keys": ["a"]}}, PUT),
    ):
        response = await stall.ask(method, path, **how)
        offered = offer_of(response)
        assert (offered["amount"], offered["payTo"]) == (str(units), PAYEE)
        assert f"{offered['network']}/erc20:{offered['asset']}" == stall.currency.asset
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.json()["code"] == "payment_required"
        required = decoded(response.headers["PAYMENT-REQUIRED"])
        assert required["resource"]["url"] == f"http://stall.test{path}"
    assert (stall.transfers(), await stall.grants()) == (0, 0)


async def test_what_is_bought_is_kept_for_its_payer_also_after_a_restart(stall: Stall) -> None:
    response = await stall.buy("PUT", "/v1/store/note", content="hello é".encode())
    assert (response.status_code, response.json()) == (200, {"key": "note", "stored": 1})
    settled = decode_payment_response_header(response.headers["PAYMENT-RESPONSE"])
    assert (settled.success, settled.amount) == (True, str(PUT))
    assert settled.payer == stall.facility.payer.address, "as the chain writes it"
    await stall.close()
    stall.open()
    response = await stall.buy("GET", "/v1/store/note")
    assert (response.status_code, response.text) == (200, "hello é")
    assert response.headers["Cache-Control"] == "private, no-store"
    assert stall.transfers() == 2
    mine = stall.facility.payer
    stall.stranger()
    assert heard(await stall.buy("GET", "/v1/store/note")) == (404, "not_found")
    assert stall.transfers() == 0, "nothing is charged for what is not there"
    assert (await stall.buy("GET", "/v1/store")).json() == {"entries": {}, "cursor": None}
    stall.facility.payer = mine
    response = await stall.buy("DELETE", "/v1/store/note")
    assert response.json() == {"key": "note", "deleted": True}
    assert heard(await stall.buy("DELETE", "/v1/store/note")) == (404, "not_found")


async def test_any_text_is_a_key_and_batches_know_the_same_ones(stall: Stall) -> None:
    entries = {key: f"of {key}" for key in KEYS}
    response = await stall.buy("POST", "/v1/store/batch/set", json={"entries": entries})
    assert (response.status_code, response.json()) == (200, {"stored": len(KEYS)})
    for key in IN_PATHS:
        path = "/v1/store/" + "".join(f"%{byte:02x}" for byte in key.encode())
        response = await stall.buy("GET", path)
        assert (response.status_code, response.text) == (200, f"of {key}"), key
    first = (await stall.buy("GET", "/v1/store", params={"limit": 5})).json()
    rest = await stall.buy("GET", "/v1/store", params={"cursor": first["cursor"]})
    assert first["entries"] | rest.json()["entries"] == entries
    found = await stall.buy("POST", "/v1/store/batch/get", json={"keys": ["a", "none", "a"]})
    assert found.json() == {"entries": {"a": "of a", "none": None}}
    gone = await stall.buy("POST", "/v1/store/batch/delete", json={"keys": KEYS})
    assert gone.json() == {"deleted": len(KEYS)}


async def test_a_browser_runs_nothing_that_somebody_stored(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/page", content=b"<script>alert(1)</script>")
    response = await stall.buy("GET", "/v1/store/page")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == "attachment"
    assert response.headers["Content-Security-Policy"].startswith("sandbox")
    page = await stall.buy("GET", "/v1/store")
    assert page.headers["Content-Type"] == "application/json"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


UNACCEPTABLE: list[tuple[str, str, dict[str, Any], tuple[int, str]]] = [
        ("PUT", "/v1/store/a", {"content": b"x" * 262_145}, (413, "too_large")),
        ("PUT", "/v1/store/" + "k" * 1025, {"content": b""}, (413, "too_large")),
        ("PUT", "/v1/store/a", {"content": b"\xff"}, (422, "invalid_parameter")),
        ("PUT", "/v1/store/", {"content": b"1"}, (422, "invalid_parameter")),
        ("PUT", "/v1/store/%ff", {"content": b"1"}, (422, "invalid_parameter")),
        ("PUT", "/v1/store/a?ttl_ms=-1", {"content": b"1"}, (422, "invalid_parameter")),
        (
            *("PUT", "/v1/store/a", {"content": b"1", "headers": {"Content-Encoding": "gzip"}}),
            (422, "invalid_parameter"),
        ),
        ("GET", "/v1/store/a", {"content": b"a body"}, (413, "too_large")),
        ("GET", "/v1/store?limit=1001", {}, (422, "invalid_parameter")),
        ("GET", "/v1/store?limit=-1", {}, (422, "invalid_parameter")),
        ("POST", "/v1/store/batch/get", {"json": {}}, (422, "invalid_parameter")),
        ("POST", "/v1/store/batch/get", {"json": {"keys": ["a", ""]}}, (422, "invalid_parameter")),
        ("POST", "/v1/store/batch/get", {"json": {"keys": [[]]}}, (422, "invalid_parameter")),
        ("POST", "/v1/store/batch/get", {"json": {"keys": "ab"}}, (422, "invalid_parameter")),
        (
            *("POST", "/v1/store/batch/get", {"json": {"keys": [str(n) for n in range(101)]}}),
            (413, "too_large"),
        ),
        (
            *("POST", "/v1/store/batch/set", {"json": {"entries": {"a": 1}}}),
            (422, "invalid_parameter"),
        ),
        (
            *("POST", "/v1/store/batch/set", {"content": b'{"entries":{"a":"1","a":"2"}}'}),
            (422, "invalid_json"),
        ),
        (
            *("POST", "/v1/store/batch/set", {"json": {"entries": {"a": "1"}, "x": 1}}),
            (422, "invalid_parameter"),
        ),
]  # fmt: skip


async def test_what_is_unacceptable_is_refused_before_anything_is_paid(stall: Stall) -> None:
    payment = stall.sign(units=PUT)
    for method, path, how, expected in UNACCEPTABLE:
        answer = await stall.ask(method, path, payment, **how)
        assert heard(answer) == expected, (method, path)
        assert answer.headers["Cache-Control"] == "private, no-store"
    assert (stall.transfers(), await stall.grants()) == (0, 0)


async def test_the_largest_value_is_stored(stall: Stall) -> None:
    value = "é" * 131_072
    assert (await stall.buy("PUT", "/v1/store/a", content=value.encode())).status_code == 200
    assert (await stall.buy("GET", "/v1/store/a")).text == value


async def test_a_cursor_of_another_payer_and_a_full_store_cost_nothing(stall: Stall) -> None:
    await stall.close()
    stall.limits = Limits(payer_entries_max=2)
    stall.open()
    await stall.buy("POST", "/v1/store/batch/set", json={"entries": {"a": "", "b": ""}})
    cursor = (await stall.buy("GET", "/v1/store?limit=1")).json()["cursor"]
    assert heard(await stall.buy("PUT", "/v1/store/c", content=b"")) == (409, "quota_exceeded")
    assert stall.transfers() == 2
    stall.stranger()
    answer = await stall.buy("GET", "/v1/store", params={"cursor": cursor})
    assert heard(answer) == (422, "invalid_cursor")
    assert stall.transfers() == 0


async def test_a_hundred_at_the_edge_of_a_quota_never_get_past_it_and_pay_for_what_is_stored(
    facility: Facility, stall: Stall
) -> None:
    await stall.close()
    stall.limits = Limits(payer_entries_max=7)
    liar = Liar(None)
    stall.open(wrap=liar, settlements_max=100, payer_settlements_max=100)
    liar.verify = believes
    payments = [stall.sign(units=PUT) for _ in range(100)]
    answers = await asyncio.gather(
        *(
            stall.ask("PUT", f"/v1/store/{n}", payment, content=b"")
            for n, payment in enumerate(payments)
        )
    )
    found = [heard(answer) for answer in answers]
    assert found.count((200, None)) == 7
    assert found.count((409, "quota_exceeded")) == 93
    assert stall.transfers() == 7
    assert await stall.grants() == 7


async def test_what_is_over_while_it_is_paid_for_is_told_as_it_was(stall: Stall) -> None:
    class Forgetting:
        """While it settles, what is bought ends."""

        def __init__(self, part: Any) -> None:
            self._part = part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._part, name)

        async def settle(self, *asked: Any) -> Any:
            await stall.storage.session(stall.payer).delete("a")
            return await self._part.settle(*asked)

    await stall.close()
    stall.open(wrap=lambda part: Forgetting(part) if hasattr(part, "settle") else part)
    await stall.storage.session(stall.payer).set("a", "1")
    answer = await stall.buy("GET", "/v1/store/a")
    assert (answer.status_code, answer.text) == (200, "1"), "which it was when it was asked for"
    assert heard(await stall.buy("GET", "/v1/store/a")) == (404, "not_found")
    assert stall.transfers() == 1, "nothing is charged for nothing"


async def test_what_is_free_knows_no_payer(stall: Stall) -> None:
    from api.gate.store import Prices

    await stall.buy("PUT", "/v1/store/a", content=b"1")
    await stall.close()
    stall.open(prices=Prices(get=None, list=None))
    for path in ("/v1/store/a", "/v1/store"):
        for payment in (None, stall.sign(units=GET)):
            assert heard(await stall.ask("GET", path, payment)) == (401, "no_payer")
    assert stall.transfers() == 1
