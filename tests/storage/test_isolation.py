"""No cursor, size, quota or error of one payer means anything to another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidInput, TallystickError
from engine.storage.cursor import KEY_BYTES, seal, unseal
from engine.storage.limits import Limits, QuotaExceeded
from engine.storage.memory import MemoryStore
from engine.storage.payer import Payer
from engine.storage.session import Session, Storage
from tests.storage.conftest import Open
from tests.storage.stores import new_payer

pytestmark = pytest.mark.anyio

ACCOUNT = new_payer().account


async def refused(session: Session, prefix: str, cursor: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        await session.list(prefix=prefix, cursor=cursor)  # type: ignore[arg-type]  # as it may come
    assert (caught.value.field, caught.value.code) == ("cursor", "invalid_cursor")


async def filled(storage: Storage, payer: Payer) -> tuple[Session, str]:
    session = storage.session(payer)
    await session.set_many({f"k{n}": "" for n in range(5)})
    cursor = (await session.list(prefix="k", limit=2)).cursor
    assert cursor is not None
    return session, cursor


async def test_a_cursor_is_for_its_payer_chain_and_prefix(storage: Storage) -> None:
    payer = new_payer()
    session, cursor = await filled(storage, payer)
    for stranger in (new_payer(), Payer(payer.address, "eip155:1"), Payer(payer.address, "x-y:1")):
        other, its_own = await filled(storage, stranger)
        assert its_own != cursor, "though it is at the same key"
        await refused(other, "k", cursor)
        await refused(session, "k", its_own)
    for prefix in ("", "k0", "K"):
        await refused(session, prefix, cursor)
    assert list((await session.list(prefix="k", cursor=cursor)).entries) == ["k2", "k3", "k4"]


async def test_a_cursor_is_for_its_store(open_store: Open) -> None:
    payer = new_payer()
    session, cursor = await filled(open_store(), payer)
    other, its_own = await filled(Storage(MemoryStore()), payer)
    await refused(session, "k", its_own)
    await refused(other, "k", cursor)


async def test_a_cursor_that_was_touched_is_refused(session: Session) -> None:
    await session.set_many({f"k{n}": "" for n in range(5)})
    cursor = (await session.list(limit=2)).cursor
    assert cursor is not None
    others = [cursor[:n] for n in range(len(cursor))]
    for n, character in enumerate(cursor):
        others.append(cursor[:n] + ("A" if character != "A" else "B") + cursor[n + 1 :])
    others += [cursor + end for end in ("=", "A", "\n", " ", "\0")]
    others += ["k1", "é", "\ud800", "=", "A" * 100_000, cursor.swapcase(), "." + cursor]
    for other in others:
        await refused(session, "", other)
    for other in (1, b"", [], {}):
        await refused(session, "", other)


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=3), st.data())
def test_any_other_text_is_no_cursor(position: str, edit: str, data: st.DataObject) -> None:
    key = bytes(KEY_BYTES)
    cursor = seal(key, ACCOUNT, "p", position)
    assert unseal(key, ACCOUNT, "p", cursor) == position
    start = data.draw(st.integers(0, len(cursor)))
    end = data.draw(st.integers(start, len(cursor)))
    edited = cursor[:start] + edit + cursor[end:]
    if edited != cursor:
        with pytest.raises(InvalidInput, match="cursor"):
            unseal(key, ACCOUNT, "p", edited)
    with pytest.raises(InvalidInput, match="cursor"):
        unseal(bytes([*key[1:], 1]), ACCOUNT, "p", cursor)


def test_what_is_sealed_cannot_be_shifted_between_its_parts() -> None:
    key = bytes(KEY_BYTES)
    assert seal(key, "ab", "c", "d")[:20] != seal(key, "a", "bc", "d")[:20]
    assert seal(key, "a", "bc", "d")[:20] != seal(key, "a", "b", "cd")[:20]


async def test_what_a_payer_hears_does_not_depend_on_others(open_store: Open) -> None:
    limits = Limits(payer_entries_max=2, payer_bytes_max=20, value_bytes_max=30)
    storage = open_store(limits=limits)
    alone = storage.session(new_payer())

    async def heard(session: Session) -> list[object]:
        answers: list[object] = []
        for ask in (
            session.get("k"),
            session.delete("k"),
            session.list(),
            session.get_many(["k"]),
            session.delete_many(["k"]),
            session.check_set({"k": "x" * 19}),
            session.set("k", "x" * 20),
            session.set("k", "x" * 31),
            session.set_many({"a": "", "b": "", "c": ""}),
            session.list(cursor="k"),
        ):
            try:
                answers.append(await ask)
            except TallystickError as error:
                answers.append((type(error), error.code, error.message, error.details))
        return answers

    before = await heard(alone)
    rich = storage.session(new_payer())
    await rich.set_many({"k": "x" * 18, "l": ""})
    assert await heard(alone) == before
    with pytest.raises(QuotaExceeded):
        await rich.set("m", "")


async def test_chains_are_apart_and_case_is_not(storage: Storage) -> None:
    address = "0x52908400098527886E0F7030069857D2E4169EE7"
    here, there = Payer(address, "eip155:8453"), Payer(address, "eip155:1")
    for payer in (here, there):
        await storage.session(payer).delete("k")
    await storage.session(here).set("k", "here")
    for spelled in (address.lower(), address.replace("0x", "0X"), "0x" + address[2:].swapcase()):
        assert await storage.session(Payer(spelled, "eip155:8453")).get("k") == "here"
    assert await storage.session(there).get("k") is None
