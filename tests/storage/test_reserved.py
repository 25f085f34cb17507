"""Room that is kept for a write, writes on a condition, and what payments have bought, on each kind
of store."""

import asyncio

import pytest

from engine.clock import ManualClock
from engine.errors import InvalidInput
from engine.storage.limits import (
    RESERVATION_MS,
    Changed,
    Limits,
    QuotaExceeded,
    WriteInProgress,
)
from engine.storage.session import Session
from tests.storage.conftest import Open
from tests.storage.stores import new_payer

pytestmark = pytest.mark.anyio


@pytest.fixture
def small(open_store: Open) -> Session:
    """Somebody who may have three entries of thirty bytes together."""
    limits = Limits(payer_entries_max=3, payer_bytes_max=30)
    return open_store(limits=limits).session(new_payer())


async def full(session: Session, key: str) -> bool:
    """Whether one more is refused, to be written as to be reserved."""
    found = []
    for ask in (session.check_set({key: ""}), session.reserve({key: ""}, "another")):
        try:
            await ask
            found.append(False)
        except QuotaExceeded:
            found.append(True)
    await session.release("another")
    assert len(set(found)) == 1
    return found[0]


async def test_what_is_reserved_is_for_one_write(small: Session) -> None:
    await small.set("a", "1")
    await small.reserve({"b": "2", "c": "3"}, "ours")
    await small.reserve({"b": "2", "c": "3"}, "ours")
    assert await full(small, "x")
    with pytest.raises(QuotaExceeded) as caught:
        await small.set("x", "")
    assert (caught.value.details["quota"], caught.value.details["size"]) == ("entries", 4)
    await small.set("a", "2", ttl_ms=0)
    assert not await full(small, "a"), "which takes no more than it does"
    await small.set_many({"b": "2", "c": "3"}, reservation="ours")
    assert (await small.list()).entries == {"a": "2", "b": "2", "c": "3"}
    await small.delete("c")
    assert not await full(small, "x"), "nothing is reserved any more"


async def test_what_is_released_or_over_is_there_for_all(
    small: Session, clock: ManualClock
) -> None:
    await small.reserve({"a": "x" * 29}, "ours")
    assert await full(small, "b")
    await small.release("ours")
    assert not await full(small, "b")
    await small.release("ours")
    await small.reserve({"a": "x" * 29}, "ours")
    clock.advance(RESERVATION_MS - 1)
    assert await full(small, "b")
    clock.advance(1)
    assert not await full(small, "b")
    await small.set_many({"a": "x" * 29}, reservation="ours")
    with pytest.raises(QuotaExceeded):
        await small.set_many({"b": ""}, reservation="ours")


async def test_many_who_reserve_at_once_never_get_past_the_quota(open_store: Open) -> None:
    storage = open_store(limits=Limits(payer_entries_max=5))
    payer, other = new_payer(), new_payer()

    async def buy(n: int) -> bool:
        session = storage.session(payer)
        try:
            await session.reserve({str(n): ""}, f"payment {n}")
        except QuotaExceeded:
            return False
        await session.set_many({str(n): ""}, reservation=f"payment {n}")
        return True

    bought = await asyncio.gather(*(buy(n) for n in range(30)))
    assert sum(bought) == 5
    assert len((await storage.session(payer).list()).entries) == 5
    await storage.session(other).reserve({"a": ""}, "payment 1")


async def test_of_many_who_replace_the_same_one_does(open_store: Open) -> None:
    session = open_store().session(new_payer())

    async def replaced(old: str | None, new: str | None) -> bool:
        try:
            await session.replace("k", old, new)
        except Changed:
            return False
        return True

    for old, news in ((None, range(20)), ("", ["a", "b"] * 5), ("b", [None] * 5)):
        if old is not None:
            await session.set("k", old)
        values = [None if new is None else str(new) for new in news]
        done = await asyncio.gather(*(replaced(old, value) for value in values))
        assert sum(done) == 1
        assert await session.peek("k") == values[done.index(True)]
    assert not await replaced("b", "c"), "what is gone is not what it was"
    for old in ("\ud800", 1):
        with pytest.raises(InvalidInput, match="old"):
            await session.replace("k", old, "c")  # type: ignore[arg-type]


async def test_a_key_is_reserved_for_one_who_replaces_it(
    open_store: Open, clock: ManualClock
) -> None:
    limits = Limits(payer_entries_max=2)
    session = open_store(limits=limits).session(new_payer())
    await session.set_many({"a:1": "1", "b": "2"})
    await session.reserve({"a:1": "2"}, "ours", alone="a:1")
    await session.reserve({"a:1": "2"}, "ours", alone="a:1")
    for entries in ({}, {"a:1": "3"}):
        with pytest.raises(WriteInProgress):
            await session.reserve(entries, "theirs", alone="a:1")
    await session.reserve({}, "theirs", alone="b")
    await session.reserve({"a:1": "3"}, "anybody's")
    await session.replace("a:1", "1", "2", reservation="ours")
    await session.reserve({}, "next", alone="a:1")
    await session.replace("a:1", "2", None, reservation="next")
    await session.reserve({"a:1": "0"}, "last", alone="a:1")
    clock.advance(RESERVATION_MS)
    await session.reserve({"a:1": "0"}, "later", alone="a:1")
    await session.release("later")
    await session.set("c", "")
    with pytest.raises(QuotaExceeded):
        await session.replace("a:1", None, "0")
    with pytest.raises(Changed):
        await session.replace("c", None, "0")
    assert (await session.list()).entries == {"b": "2", "c": ""}


async def test_a_grant_is_replaced_by_one_at_a_time(open_store: Open) -> None:
    storage = open_store()
    grants = storage.grants
    assert grants is not None
    name = new_payer().account
    assert (await grants.read(name))[0] is None
    first = await asyncio.gather(*(grants.replace(name, None, b"%d" % n) for n in range(20)))
    assert sum(first) == 1
    kept = b"%d" % first.index(True)
    body, now = await grants.read(name)
    assert body == kept
    assert now > 0
    later = await asyncio.gather(*(grants.replace(name, kept, b"n%d" % n) for n in range(20)))
    assert sum(later) == 1
    for stale in (None, kept):
        assert not await grants.replace(name, stale, b"another")
        assert not await grants.replace(name, stale or b"", None)
    kept = b"n%d" % later.index(True)
    assert await grants.replace(name, kept, None)
    assert (await grants.read(name))[0] is None
    assert (await storage.session(new_payer()).list()).entries == {}
