"""The store that the server has: the one that is named, closed in order, and swept."""

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from api.rest import errors
from api.rest.app import create_app
from api.server import AppServer
from engine import engine as engine_module
from engine.errors import CannotStart, Conflict, InvalidInput
from engine.settings import load_settings
from engine.storage.keeper import Keeper
from engine.storage.limits import QuotaExceeded, TooLarge
from engine.storage.memory import MemoryStore
from engine.storage.postgres import PostgresPool
from engine.storage.sql import SqlStore
from engine.storage.sqlite import SqliteFile
from engine.storage.valkey import ValkeyStore
from tests.servers import PATIENCE_S, ValkeyServer
from tests.storage import mine
from tests.storage.stores import new_payer
from tests.world import World, settings_for


def kept(directory: Path, **changes: object) -> Keeper:
    return Keeper(settings_for(directory, **changes))


def test_without_a_name_it_is_in_the_servers_own_database(
    tmp_path: Path, database_url: str
) -> None:
    for changes, database in (
        ({}, SqliteFile),
        ({"store": "sql"}, SqliteFile),
        ({"database": database_url}, PostgresPool),
    ):
        keeper = kept(tmp_path, **changes)
        store = keeper.storage().store
        assert isinstance(store, SqlStore)
        assert isinstance(store._database, database)
        assert keeper.storage().store is store
        keeper.close_now()
    assert (tmp_path / "storage.sqlite3").exists()


def test_another_store_is_the_one_that_is_named(tmp_path: Path) -> None:
    for name, kind in (
        ("memory", MemoryStore),
        ("valkey://127.0.0.1:1", ValkeyStore),
        ("tests.storage.mine:STORE", type(mine.STORE)),
    ):
        keeper = kept(tmp_path, store=name)
        assert isinstance(keeper.storage().store, kind)
        assert keeper.sweep() == 0
        keeper.close_now()


@pytest.mark.parametrize(
    "name", ["", "http://me:secret@host", "vakley://me:secret@host", "valkey://me:se/cret@host"]
)
def test_what_is_no_store_is_refused_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_STORE", name)
    with pytest.raises(CannotStart, match=r"^TALLYSTICK_STORE: takes ") as refused:
        Keeper(load_settings(data_dir=tmp_path)).storage()
    assert "cret" not in str(refused.value)


def test_what_is_over_leaves_the_disk_while_the_engine_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_INTERVAL_S", 0.01)
    world = World(tmp_path / "data")
    store = world.engine.store.store
    assert isinstance(store, SqlStore)
    payer = new_payer()

    async def rows() -> int:
        count = "SELECT count(*) FROM entries"
        return int(await store._database.read(lambda c: c.execute(count).fetchone()[0]))

    async def fill() -> None:
        session = world.engine.store.session(payer)
        await session.set_many({"a": "1", "b": "2"}, ttl_ms=1)
        await session.set("c", "3")

    asyncio.run(fill())
    world.engine.start()
    patience = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if asyncio.run(rows()) == 1:
            break
        patience.wait(0.01)
    assert asyncio.run(rows()) == 1
    world.engine.close()


def test_a_server_closes_its_store_in_the_loop_that_used_it(
    tmp_path: Path, valkey_server: ValkeyServer
) -> None:
    world = World(tmp_path / "data", store=valkey_server.url)
    payer = new_payer()
    app = create_app(world.engine)

    @app.get("/note")
    async def note() -> str | None:
        session = world.engine.store.session(payer)
        before = await session.get("a")
        await session.set("a", "1")
        return before

    heard = []
    for _ in range(2):
        with AppServer(app, "127.0.0.1", 0) as server:
            heard.append(httpx.get(f"{server.url}/note", trust_env=False).json())
    assert heard == [None, "1"]
    world.engine.close()


def test_what_is_too_large_has_a_status_of_its_own() -> None:
    for raised, status in (
        (TooLarge("value", 2, 1, "bytes"), 413),
        (InvalidInput("value", "must be text"), 422),
        (QuotaExceeded("too much"), 409),
        (Conflict("taken"), 409),
    ):
        assert errors.answer(raised).status_code == status
