"""What every store promises, on each of them."""

import asyncio
import unicodedata
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.storage.limits import TTL_MS_MAX, Limits, QuotaExceeded, TooLarge
from engine.storage.session import Session, Storage
from engine.storage.store import Page
from tests.storage.conftest import Open
from tests.storage.stores import DURABLE, new_payer

pytestmark = pytest.mark.anyio

TEXTS = [
    *("a", "A", "a ", " a", ".", "..", "../a", "a/b", "a%2fb", "a%2Fb", "%", "_", "a%", "a_", "a*"),
    *("__proto__", "constructor", "{a}", "}", "[a", "(a", "-", "+", "'; DROP TABLE entries; --"),
    *("\0", "a\0", "a\0b", "\r\n", "\x7f", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "😀"),
    *(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")),
    *("ﬁ", "fi", "\u0430", "ß", "SS", "0", "00", "null", "k" * 1024, "é" * 512),
]  # fmt: skip


async def everything(session: Session, **options: Any) -> dict[str, str]:
    page = await session.list(**options)
    assert page.cursor is None
    return page.entries


async def test_what_is_set_is_got_until_it_is_set_again_or_deleted(session: Session) -> None:
    assert await session.get("a") is None
    await session.set("a", "1")
    await session.set("b", "")
    assert (await session.get("a"), await session.get("b")) == ("1", "")
    await session.set("a", "2")
    assert await everything(session) == {"a": "2", "b": ""}
    assert await session.delete("a") is True
    assert await session.delete("a") is False
    assert await session.get("a") is None
    assert await everything(session) == {"b": ""}


async def test_many_at_once(session: Session) -> None:
    await session.set_many({"a": "1", "b": "2", "c": "3"})
    await session.set_many({})
    assert await session.get_many(["c", "x", "a", "c"]) == {"c": "3", "x": None, "a": "1"}
    assert await session.get_many([]) == {}
    assert await session.delete_many(["a", "x", "c", "a"]) == 2
    assert await session.delete_many([]) == 0
    assert await everything(session) == {"b": "2"}


async def test_any_text_is_a_key_and_a_value_of_its_own(session: Session) -> None:
    expected = {text: f"{n}{text}" for n, text in enumerate(TEXTS)}
    await session.set_many(expected)
    for text, value in expected.items():
        assert await session.get(text) == value
    entries = await everything(session)
    assert entries == expected
    assert list(entries) == sorted(TEXTS), "in the order of code points"
    for prefix in TEXTS:
        listed = await everything(session, prefix=prefix, keys_only=True)
        assert listed == {text: "" for text in sorted(TEXTS) if text.startswith(prefix)}
    assert await session.delete_many(TEXTS) == len(TEXTS)
    assert await everything(session) == {}


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00", "\udfff\ud800"])
async def test_a_lone_surrogate_is_no_text(session: Session, text: str) -> None:
    lone = next(f"U+{ord(c):04X}" for c in text if "\ud800" <= c <= "\udfff")
    for field, ask in {
        "key": [session.get(text), session.set(text, ""), session.delete(text)],
        "value": [session.set("a", text), session.set_many({"a": text})],
        "prefix": [session.list(prefix=text)],
    }.items():
        for asked in ask:
            with pytest.raises(InvalidInput, match=f"^{field}: .*{lone.replace('+', '.')}"):
                await asked
    assert await everything(session) == {}


async def test_sizes_are_bytes_and_too_much_is_refused_by_name(open_store: Open) -> None:
    limits = Limits(key_bytes_max=4, value_bytes_max=6, batch_entries_max=2, page_entries_max=3)
    session = open_store(limits=limits).session(new_payer())
    await session.set("éé", "ééé")
    for asked, field, size in [
        (session.set("ééa", ""), "key", 5),
        (session.get("aaaaa"), "key", 5),
        (session.delete("aaaaa"), "key", 5),
        (session.set("a", "éééa"), "value", 7),
        (session.set_many({"a": "", "b": "0123456"}), "value", 7),
        (session.set_many({"a": "", "b": "", "c": ""}), "keys", 3),
        (session.get_many("abc"), "keys", 3),
        (session.delete_many("abc"), "keys", 3),
        (session.check_set({"a": "0123456"}), "value", 7),
        (session.list(prefix="aaaaa"), "prefix", 5),
    ]:
        with pytest.raises(TooLarge) as refused:
            await asked
        assert (refused.value.field, refused.value.details["size"]) == (field, size)
    for limit in (-1, 4, True, "1"):
        with pytest.raises(InvalidInput, match=r"^limit: must be"):
            await session.list(limit=limit)  # type: ignore[arg-type]  # as it may come
    for ttl_ms in (-1, TTL_MS_MAX + 1, False, 1.5):
        with pytest.raises(InvalidInput, match=r"^ttl_ms: must be"):
            await session.set("a", "", ttl_ms=ttl_ms)  # type: ignore[arg-type]  # as it may come
    for key in ("", None, 1, b"a"):
        with pytest.raises(InvalidInput, match=r"^key: must"):
            await session.set(key, "")  # type: ignore[arg-type]  # as it may come
    with pytest.raises(InvalidInput, match=r"^value: must be text"):
        await session.set("a", None)  # type: ignore[arg-type]  # as it may come
    assert await everything(session) == {"éé": "ééé"}


async def test_a_payer_has_a_quota_of_entries_and_bytes(open_store: Open) -> None:
    storage = open_store(limits=Limits(payer_entries_max=3, payer_bytes_max=20))
    session, other = storage.session(new_payer()), storage.session(new_payer())
    await session.set_many({"a": "12345", "b": "12345", "c": "1234567"})
    for entries, quota, size in [
        ({"d": ""}, "entries", 4),
        ({"a": "", "d": "", "e": ""}, "entries", 5),
        ({"a": "123456"}, "bytes", 21),
        ({"a": "", "b": "0123456789a"}, "bytes", 21),
    ]:
        for ask in (session.check_set, session.set_many):
            with pytest.raises(QuotaExceeded) as refused:
                await ask(entries)
            assert refused.value.details["quota"] == quota
            assert refused.value.details["size"] == size
    assert await everything(session) == {"a": "12345", "b": "12345", "c": "1234567"}
    await session.check_set({"a": "", "b": "0123456789"})
    assert await session.get("a") == "12345", "it was only asked"
    await other.set_many({"a": "12345", "b": "12345", "c": "1234567"})
    await session.delete("b")
    await session.set("d", "12345")
    await session.set_many({"a": "", "c": "01234567890ab"[:12]})


@pytest.mark.parametrize("kind", DURABLE)
async def test_a_lowered_quota_refuses_only_what_makes_it_more(open_store: Open) -> None:
    payer = new_payer()
    before = open_store()
    await before.session(payer).set_many({"a": "12345", "b": "12345", "c": "12345"})
    await before.close()
    limits = Limits(payer_entries_max=2, payer_bytes_max=10)
    session = open_store(limits=limits).session(payer)
    await session.set("a", "1234")
    await session.set("a", "4321")
    for entries in ({"a": "12345"}, {"d": ""}):
        with pytest.raises(QuotaExceeded):
            await session.set_many(entries)
    assert await session.delete_many(["b", "c"]) == 2
    await session.set("d", "1234")


async def test_a_life_ends_and_begins_anew_when_it_is_got(open_store: Open, clock: Any) -> None:
    session = open_store(ttl_ms=60_000).session(new_payer())
    await session.set("default", "1")
    await session.set("own", "2", ttl_ms=90_000)
    await session.set("ever", "3", ttl_ms=0)
    clock.advance(59_999)
    assert await session.get("default") == "1"
    clock.advance(30_000)
    assert await everything(session) == {"default": "1", "ever": "3", "own": "2"}
    clock.advance(1)
    assert await session.get("own") is None, "to be listed is not to be got"
    assert await session.delete("own") is False
    assert await everything(session) == {"default": "1", "ever": "3"}
    await session.set("own", "2", ttl_ms=90_000)
    for _ in range(3):
        clock.advance(89_999)
        assert await session.get_many(["own", "default"]) == {"own": "2", "default": None}
    await session.set("own", "2")
    clock.advance(60_000)
    assert await everything(session) == {"ever": "3"}, "set again, it has the default life"
    await session.set("ever", "3", ttl_ms=60_000)
    clock.advance(60_000)
    assert await session.delete_many(["ever", "own"]) == 0
    clock.advance(10**12)
    assert await everything(session) == {}


async def test_what_is_set_for_ever_forgets_the_life_it_had(open_store: Open, clock: Any) -> None:
    session = open_store(ttl_ms=60_000).session(new_payer())
    await session.set_many({"got": "1", "not got": "1"})
    await session.set_many({"got": "2", "not got": "2"}, ttl_ms=0)
    assert await session.get("got") == "2"
    clock.advance(10**12)
    assert await everything(session) == {"got": "2", "not got": "2"}


async def test_what_is_over_takes_no_room(open_store: Open, clock: Any) -> None:
    limits = Limits(payer_entries_max=2, payer_bytes_max=100)
    session = open_store(limits=limits).session(new_payer())
    await session.set("ever", "1")
    await session.set("a", "1", ttl_ms=60_000)
    with pytest.raises(QuotaExceeded):
        await session.check_set({"b": ""})
    clock.advance(60_000)
    await session.check_set({"b": "", "ever": "2"})
    with pytest.raises(QuotaExceeded):
        await session.set_many({"b": "", "c": ""})
    await session.set_many({"b": "", "ever": "2"})
    assert await everything(session) == {"b": "", "ever": "2"}
    await session.delete_many(["b", "ever"])
    await session.set_many({"a": "x" * 49, "b": "x" * 49}, ttl_ms=60_000)
    clock.advance(60_000)
    await session.set_many({"b": "x" * 49, "c": "x" * 49})
    for entries in ({"b": "x" * 50}, {"d": ""}):
        with pytest.raises(QuotaExceeded):  # what was over was taken off once
            await session.set_many(entries)


async def test_pages_have_everything_once(session: Session) -> None:
    keys = [f"k{n:02}" for n in range(10)]
    await session.set_many({key: f"value {key}" for key in [*keys, "j", "l"]})
    for size in (1, 3, 5, 10):
        pages, cursor = list[Page](), None
        while not pages or cursor is not None:
            pages.append(await session.list(prefix="k", limit=size, cursor=cursor))
            cursor = pages[-1].cursor
        assert [len(page.entries) for page in pages[:-1]] == [size] * (len(pages) - 1)
        assert [key for page in pages for key in page.entries] == keys
        assert len(pages) == -(-10 // size), "a cursor is there if there is more, and only then"


async def test_a_cursor_leads_on_when_its_page_is_gone(session: Session) -> None:
    await session.set_many({key: key for key in "abcdefg"})
    first = await session.list(limit=3)
    assert list(first.entries) == ["a", "b", "c"]
    await session.delete_many(first.entries)
    for _ in range(2):  # a cursor may be used again
        assert (await session.list(cursor=first.cursor)).entries.keys() == set("defg")
    await session.delete_many("defg")
    assert await session.list(cursor=first.cursor) == Page({})


async def test_without_a_limit_a_page_is_what_a_page_may_be(open_store: Open) -> None:
    session = open_store(limits=Limits(page_entries_max=3)).session(new_payer())
    await session.set_many({key: key for key in "abcd"})
    for page in (await session.list(), await session.list(limit=0), await session.list(limit=3)):
        assert list(page.entries) == ["a", "b", "c"]
        assert page.cursor is not None


async def test_many_at_the_edge_of_the_quota_never_get_past_it(open_store: Open) -> None:
    limits = Limits(payer_entries_max=15, payer_bytes_max=10_000)
    session = open_store(limits=limits).session(new_payer())

    async def put(n: int) -> bool:
        try:
            await session.set(f"{n:03}", "x" * 7)
        except QuotaExceeded:
            return False
        return True

    stored = await asyncio.gather(*map(put, range(30)))
    assert sum(stored) == 15
    assert set(await everything(session)) == {f"{n:03}" for n, ok in enumerate(stored) if ok}


async def test_many_at_one_key_lose_and_mix_nothing(open_store: Open) -> None:
    size = 20_000
    limits = Limits(payer_bytes_max=size + 1)
    session = open_store(limits=limits).session(new_payer())
    values = {chr(0x100 + n) * (size // 2) for n in range(20)}

    async def write(value: str) -> None:
        await session.set("k", value)
        assert await session.get("k") in values

    await asyncio.gather(*map(write, values))
    assert await session.get("k") in values
    with pytest.raises(QuotaExceeded):
        await session.set("l", "")
    assert await session.delete("k")
    await session.set("k", "x" * size)  # every byte was counted, and once


async def test_one_of_many_deletes_it(session: Session) -> None:
    await session.set("k", "")
    deleted = await asyncio.gather(*(session.delete("k") for _ in range(10)))
    assert sorted(deleted) == [False] * 9 + [True]


async def test_payers_do_not_see_each_other(storage: Storage) -> None:
    one, two = storage.session(new_payer()), storage.session(new_payer())
    await one.set("a", "mine")
    assert await two.get("a") is None
    assert await two.get_many(["a"]) == {"a": None}
    assert await two.delete("a") is False
    assert await two.delete_many(["a"]) == 0
    assert await everything(two) == {}
    await two.set("a", "other")
    assert (await one.get("a"), await two.get("a")) == ("mine", "other")
    assert await two.delete("a") is True
    assert await everything(one) == {"a": "mine"}
