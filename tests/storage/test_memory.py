"""What is particular to the store in memory: a hard cap, and who loses what at it."""

import pytest

from engine.clock import ManualClock
from engine.storage.limits import RESERVATION_MS, Limits, QuotaExceeded
from engine.storage.memory import MemoryStore
from engine.storage.session import Storage
from tests.storage.stores import new_payer

pytestmark = pytest.mark.anyio


def test_options_that_cannot_be_are_refused() -> None:
    for max_entries in (0, -1):
        with pytest.raises(ValueError, match=r"^max_entries must be >= 1$"):
            MemoryStore(max_entries=max_entries)
    with pytest.raises(ValueError, match=r"^ttl_ms must be >= 0$"):
        MemoryStore(ttl_ms=-1)
    with pytest.raises(ValueError, match=r"^payer_entries_max must be >= 1$"):
        Limits(payer_entries_max=0)
    with pytest.raises(ValueError, match=r"^key_bytes_max must be <= 2048$"):
        Limits(key_bytes_max=2049)


def test_by_default_it_has_ten_thousand_entries_for_an_hour() -> None:
    store = MemoryStore()
    assert (store.max_entries, store.ttl_ms) == (10_000, 3_600_000)


async def test_at_the_cap_a_payer_loses_what_they_used_longest_ago() -> None:
    session = Storage(MemoryStore(max_entries=3)).session(new_payer())
    await session.set_many({"a": "", "b": "", "c": ""})
    await session.get("a")
    await session.set("b", "again")
    await session.list()
    await session.set("d", "")
    assert (await session.list()).entries.keys() == {"a", "b", "d"}
    await session.set_many({"e": "", "b": ""})
    assert (await session.list()).entries.keys() == {"b", "d", "e"}


async def test_at_the_cap_nobody_takes_from_others() -> None:
    storage = Storage(MemoryStore(max_entries=4))
    one, two, three = (storage.session(new_payer()) for _ in range(3))
    await one.set_many({"a": "1", "b": "1"})
    await two.set_many({"a": "2", "b": "2"})
    await two.set("c", "2")
    assert (await two.list()).entries == {"b": "2", "c": "2"}, "two gave up their own"
    for entries in ({"d": "", "e": "", "f": ""}, {"b": "", "c": "", "d": ""}):
        with pytest.raises(QuotaExceeded, match="the store is full"):
            await two.set_many(entries)
    for ask in (three.check_set, three.set_many):
        with pytest.raises(QuotaExceeded, match="the store is full"):
            await ask({"a": "3"})
    assert (await one.list()).entries == {"a": "1", "b": "1"}
    assert (await two.list()).entries == {"b": "2", "c": "2"}
    await one.delete("a")
    await three.set("a", "3")
    assert await three.get("a") == "3"


async def test_what_is_reserved_at_the_cap_is_kept_for_its_payer(clock: ManualClock) -> None:
    storage = Storage(MemoryStore(max_entries=3, clock=clock))
    one, two, three = (storage.session(new_payer()) for _ in range(3))
    await one.set_many({"a": "1", "b": "1"})
    await two.reserve({"c": "2"}, "ours")
    for ask in (three.reserve({"d": "3"}, "theirs"), three.set("d", "3")):
        with pytest.raises(QuotaExceeded, match="the store is full"):
            await ask
    await one.set("e", "1")
    assert (await one.list()).entries.keys() == {"b", "e"}, "one gave up their own"
    await two.set_many({"c": "2"}, reservation="ours")
    await one.delete("b")
    await two.reserve({"f": "2"}, "ours")
    clock.advance(RESERVATION_MS)
    await three.set("d", "3")
    assert (await three.list()).entries == {"d": "3"}, "nobody came"


async def test_what_is_over_makes_room_whose_ever_it_was() -> None:
    clock = ManualClock(0)
    storage = Storage(MemoryStore(max_entries=2, ttl_ms=100, clock=clock))
    one, two = storage.session(new_payer()), storage.session(new_payer())
    await one.set_many({"a": "", "b": ""})
    clock.advance(50)
    await one.get("b")
    clock.advance(50)
    await two.set("c", "")
    with pytest.raises(QuotaExceeded):
        await storage.session(new_payer()).set("d", "")
    assert (await one.list()).entries.keys() == {"b"}


async def test_nothing_is_kept_of_what_is_gone() -> None:
    clock = ManualClock(0)
    store = MemoryStore(ttl_ms=1_000, clock=clock)
    storage = Storage(store)
    for n in range(500):
        session = storage.session(new_payer())
        await session.set("k", str(n))
        if n % 2:
            await session.delete("k")
    assert len(store._shelves) == 250
    session = storage.session(new_payer())
    for _ in range(5_000):
        await session.set("k", "")
    assert len(store._due) <= 2 * 251 + 64
    clock.advance(1_000)
    assert (await session.list()).entries == {}
    assert (len(store._shelves), len(store._due), store._entries_count) == (0, 0, 0)


async def test_what_is_closed_has_forgotten_everything() -> None:
    storage = Storage(MemoryStore())
    session = storage.session(new_payer())
    await session.set("a", "1")
    await session.reserve({"a": "1"}, "ours", alone="a")
    await storage.close()
    await session.reserve({"a": "1"}, "theirs", alone="a")
    assert await session.get("a") is None
    await session.set("a", "2")
    assert await session.get("a") == "2"
