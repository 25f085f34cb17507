"""Writes on a condition, by HTTP: one of many does it, and who does not has not paid."""

import asyncio
from typing import Any

import pytest

from api.gate.conditions import etag
from engine.errors import Unavailable
from tests.gate.stall import PUT, Stall, heard

pytestmark = pytest.mark.anyio

CHANGED = (412, "precondition_failed")
BUSY = (503, "write_in_progress")
NEW: Any = {"headers": {"If-None-Match": "*"}}


def match(tags: str) -> Any:
    return {"headers": {"If-Match": tags}}


async def test_it_is_written_if_nothing_else_came_before(stall: Stall) -> None:
    first = await stall.buy("PUT", "/v1/store/a", content=b"1", **NEW)
    assert (heard(first), first.headers["ETag"]) == ((200, None), etag("1"))
    got = await stall.buy("GET", "/v1/store/a")
    assert got.headers["ETag"] == etag("1")
    paid = stall.transfers()
    for condition in (NEW, match(etag("2")), match(f"W/{etag('1')}"), match('"", "x"')):
        assert heard(await stall.buy("PUT", "/v1/store/a", content=b"2", **condition)) == CHANGED
    assert heard(await stall.buy("DELETE", "/v1/store/a", **condition)) == CHANGED
    both = {"headers": {"If-Match": etag("1"), "If-None-Match": f"W/{etag('1')}"}}
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"2", **both)) == CHANGED
    assert heard(await stall.buy("PUT", "/v1/store/b", content=b"2", **match("*"))) == CHANGED
    assert heard(await stall.buy("DELETE", "/v1/store/b", **NEW)) == (404, "not_found")
    assert stall.transfers() == paid, "nothing is charged for what is not done"
    several = match(f'"x", {etag("1")}')
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"2", **several)) == (200, None)
    assert heard(await stall.buy("DELETE", "/v1/store/a", **match(etag("2")))) == (200, None)
    assert (await stall.buy("GET", "/v1/store")).json()["entries"] == {}


async def test_a_condition_is_never_overlooked(stall: Stall) -> None:
    for tags in ("", "x", '"x', '"x" "y"', '*, "x"', '"x",', '"a\tb"', "W/"):
        answer = await stall.ask("PUT", "/v1/store/a", stall.sign(), content=b"", **match(tags))
        assert heard(answer) == (422, "invalid_parameter")
        assert answer.json()["details"] == {"field": "If-Match"}
    for verb, body in (
        ("set", {"entries": {"a": "1"}}),
        ("get", {"keys": ["a"]}),
        ("delete", {"keys": ["a"]}),
    ):
        answer = await stall.ask("POST", f"/v1/store/batch/{verb}", json=body, **match('"x"'))
        assert heard(answer) == (422, "invalid_parameter")


async def test_of_many_at_once_one_is_paid_and_written(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/n", content=b"0")
    payments = [stall.sign(units=PUT) for _ in range(5)]

    async def add(number: int, payment: str) -> Any:
        how = {"content": b"%d" % (number + 1), **match(etag("0"))}
        for _ in range(100):
            found = heard(await stall.ask("PUT", "/v1/store/n", payment, **how))
            if found != BUSY:
                break
            await asyncio.sleep(0.2)
        return found

    found = await asyncio.gather(*(add(*each) for each in enumerate(payments)))
    assert sorted(found) == [(200, None), *[CHANGED] * 4]
    assert stall.transfers() == 2
    winner = str(found.index((200, None)) + 1)
    assert await stall.storage.session(stall.payer).peek("n") == winner


async def test_what_was_written_before_a_crash_is_not_refused_after_it(stall: Stall) -> None:
    lost = True

    class Crashing:
        """The answer of the store is lost."""

        def __init__(self, part: Any) -> None:
            self._part = part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._part, name)

        async def replace(self, *asked: Any, **how: Any) -> bool:
            nonlocal lost
            done: bool = await self._part.replace(*asked, **how)
            if lost:
                lost = False
                raise Unavailable("the answer is lost")
            return done

    await stall.close()
    stall.open(wrap=lambda part: Crashing(part) if hasattr(part, "set_many") else part)
    for method, how in (("PUT", {"content": b"1", **NEW}), ("DELETE", match(etag("1")))):
        lost = True
        payment = stall.sign(units=PUT)
        answer = await stall.ask(method, "/v1/store/a", payment, **how)
        assert heard(answer) == (503, "service_unavailable")
        assert heard(await stall.ask(method, "/v1/store/a", payment, **how)) == (200, None)
    assert stall.transfers() == 2


async def test_what_was_paid_for_and_overtaken_is_still_to_be_had(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/a", content=b"1")
    session = stall.storage.session(stall.payer)

    class Overtaken:
        """Somebody writes without a condition while it is settled."""

        def __init__(self, part: Any) -> None:
            self._part = part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._part, name)

        async def settle(self, *asked: Any) -> Any:
            await session.set("a", "another")
            return await self._part.settle(*asked)

    await stall.close()
    stall.open(wrap=lambda part: Overtaken(part) if hasattr(part, "settle") else part)
    session = stall.storage.session(stall.payer)
    payment = stall.sign(units=PUT)
    answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"2", **match(etag("1")))
    assert heard(answer) == CHANGED
    assert "PAYMENT-RESPONSE" in answer.headers, "it is paid"
    assert await session.peek("a") == "another"
    how = {"content": b"2", **match(etag("another"))}
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, **how)) == (200, None)
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, **how)) == (409, "payment_used")
    assert (await session.peek("a"), stall.transfers()) == ("2", 2)
