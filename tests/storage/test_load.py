"""Stores that others wrote: found by name, looked at, and used by what they have."""

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import CannotStart
from engine.storage.load import define_session_store, load_store
from engine.storage.memory import MemoryStore
from engine.storage.session import Storage
from engine.storage.store import Page
from tests.storage import mine
from tests.storage.stores import new_payer

HERE = "tests.storage.mine"


def test_a_store_is_found_by_its_dotted_path() -> None:
    assert load_store(f"{HERE}:STORE") is mine.STORE
    for name, max_entries in {"make": 8, "Shelves.Store": 10_000}.items():
        store = load_store(f"{HERE}:{name}")
        assert isinstance(store, MemoryStore)
        assert store.max_entries == max_entries


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("nowhere.at_all:STORE", "No module named 'nowhere'"),
        (f"{HERE}:NOTHING", "has no attribute 'NOTHING'"),
        (f"{HERE}:NUMBER", r"needs `async def get`"),
        (f"{HERE}:Deaf", r"Deaf is no store: it needs `async def list`"),
        (f"{HERE}:Hasty", r"Hasty is no store: it needs `async def get_many`"),
        (f"{HERE}:fail", "no disk"),
        (f"{HERE}:", "mine"),
        (":", "Empty module name"),
    ],
)
def test_what_is_no_store_is_refused_by_name(reference: str, why: str) -> None:
    with pytest.raises(CannotStart, match=f"^TALLYSTICK_STORE: {reference}: .*{why}"):
        load_store(reference)


@pytest.mark.parametrize("reference", ["", "redis", HERE])
def test_a_name_that_no_store_has_is_told_with_those_that_there_are(reference: str) -> None:
    with pytest.raises(CannotStart) as caught:
        load_store(reference)
    assert caught.value.message == (
        f"TALLYSTICK_STORE: there is no store {reference}: takes `memory`, `sql`, `valkey://…`, "
        "`package.module:name` or the name of an installed one (installed: none)"
    )


def test_a_store_is_found_among_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "shelf-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[tallystick.stores]\nshelf = {HERE}:make\nbroken = {HERE}:NOTHING\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    store = load_store("shelf")
    assert isinstance(store, MemoryStore)
    with pytest.raises(CannotStart, match=r"installed: broken, shelf"):
        load_store("shelve")
    with pytest.raises(CannotStart, match=r"^TALLYSTICK_STORE: broken: .*NOTHING"):
        load_store("broken")


def test_a_definition_is_the_store_itself() -> None:
    store = MemoryStore()
    assert define_session_store(store) is store
    with pytest.raises(TypeError, match="Deaf is no store: it needs `async def list`"):
        define_session_store(mine.Deaf())  # type: ignore[type-var]  # that is the point


class Plain:
    """The four verbs and no more."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in ("get", "set", "delete", "list"):
            raise AttributeError(name)
        self.asked.append(name)
        return getattr(self.inner, name)


@pytest.mark.anyio
async def test_a_store_of_four_verbs_does_everything() -> None:
    plain = Plain()
    session = Storage(plain).session(new_payer())
    await session.check_set({"a": "1"})
    await session.set_many({"a": "1", "b": "2", "c": "3"}, ttl_ms=0)
    assert await session.get_many(["a", "x"]) == {"a": "1", "x": None}
    assert await session.delete_many(["a", "x"]) == 1
    first = await session.list(limit=1)
    assert first.entries == {"b": "2"}
    assert await session.list(cursor=first.cursor) == Page({"c": "3"})
    assert plain.asked == ["set"] * 3 + ["get"] * 2 + ["delete"] * 2 + ["list"] * 2
    await Storage(plain).close()
