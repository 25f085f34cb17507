"""What is particular to stores in SQL databases: the disk, the database's clock, and neighbours."""

from pathlib import Path

import psycopg
import pytest

from engine.clock import ManualClock
from engine.db.postgres import PostgresDatabase
from engine.errors import CannotStart, Unavailable
from engine.storage import sql_database
from engine.storage.limits import Limits, QuotaExceeded
from engine.storage.postgres import PostgresPool
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sql_database import Connection, SqlDatabase
from engine.storage.sqlite import SqliteFile
from tests.servers import POSTGRES_DURABLE, PostgresServer
from tests.storage.stores import new_payer, open_storage

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SqlDatabase:
    """Each of the two; whoever uses it closes it."""
    if request.param == "sqlite":
        return SqliteFile(tmp_path / "storage.sqlite3")
    return PostgresPool(request.getfixturevalue("database_url"))


def rows(connection: Connection) -> list[int]:
    tables = ("entries", "payers")
    counts = [f"SELECT count(*) FROM {table}" for table in tables]
    return [connection.execute(count).fetchone()[0] for count in counts]


async def test_what_is_over_is_swept_from_the_disk(database: SqlDatabase) -> None:
    clock = ManualClock(0)
    store = SqlStore(database, clock=clock)
    storage = Storage(store)
    sessions = [storage.session(new_payer()) for _ in range(5)]
    for session in sessions:
        await session.set_many({"a": "1", "b": "2"}, ttl_ms=100)
    await sessions[0].set("ever", "3")
    clock.advance(99)
    await sessions[0].get("a")
    assert await store.sweep() == 0
    clock.advance(1)
    assert await store.sweep(payers_max=2) in (3, 4)
    while await store.sweep(payers_max=1):
        pass
    assert await database.read(rows) == [2, 1]
    assert (await sessions[0].list()).entries == {"a": "1", "ever": "3"}
    await store.close()


async def test_nothing_is_left_of_a_payer_who_deleted_everything(database: SqlDatabase) -> None:
    storage = Storage(SqlStore(database, limits=Limits(payer_entries_max=1)))
    session = storage.session(new_payer())
    await session.set("a", "1", ttl_ms=1_000_000)
    await session.delete("a")
    await session.delete("a")
    with pytest.raises(QuotaExceeded):
        await session.set_many({"a": "1", "b": "2"})
    await session.set_many({})
    assert await database.read(rows) == [0, 0]
    await storage.close()


async def test_a_clock_that_is_set_back_brings_nothing_back(database: SqlDatabase) -> None:
    clock = ManualClock(1_000)
    session = Storage(SqlStore(database, clock=clock)).session(new_payer())
    await session.set("a", "1", ttl_ms=100)
    clock.advance(100)
    assert await session.get("a") is None
    clock.advance(-100)
    assert await session.get("a") is None
    await database.close()


async def test_on_postgresql_the_databases_clock_decides(database_url: str) -> None:
    pool = PostgresPool(database_url)
    session = Storage(SqlStore(pool)).session(new_payer())
    await session.set("a", "1", ttl_ms=60_000)
    ends = "SELECT expires_ms - extract(epoch FROM clock_timestamp()) * 1000 FROM entries"
    left = await pool.read(lambda c: c.execute(ends).fetchone()[0])
    assert 0 < left <= 60_000
    assert await session.get("a") == "1"
    back = "UPDATE entries SET expires_ms = expires_ms - 60000"
    await pool.write(lambda c: c.execute(back))
    assert (await session.get("a"), await session.delete("a")) == (None, False)
    await pool.close()


@pytest.mark.parametrize("first", ["store", "ledger"])
async def test_a_store_and_a_ledger_have_room_in_one_database(
    database_url: str, first: str
) -> None:
    if first == "store":
        await PostgresPool(database_url).close()
    PostgresDatabase(database_url).close()
    storage = open_storage("postgres", database_url)
    session = storage.session(new_payer())
    await session.set("a", "1")
    assert await session.get("a") == "1"
    await storage.close()
    PostgresDatabase(database_url).close()


async def test_a_newer_database_is_refused(database_url: str) -> None:
    pool = PostgresPool(database_url)
    await pool.write(lambda c: c.execute("UPDATE meta SET version = 9999"))
    await pool.close()
    with pytest.raises(CannotStart, match="newer release"):
        PostgresPool(database_url)


async def test_a_database_that_forgets_is_refused_and_one_that_is_gone_comes_back() -> None:
    with pytest.raises(CannotStart, match="cannot be used"):
        PostgresPool("postgresql://postgres@/none?host=/nowhere")
    with PostgresServer({"fsync": "off"}) as server:
        with pytest.raises(CannotStart, match="set fsync = on"):
            PostgresPool(server.url())
        for setting in ("off", "on"):
            server.kill()
            server.settings = {**POSTGRES_DURABLE, "full_page_writes": setting}
            server.start()
            if setting == "off":
                with pytest.raises(CannotStart, match="set full_page_writes = on"):
                    PostgresPool(server.url())
        storage = open_storage("postgres", server.url())
        session = storage.session(new_payer())
        await session.set("a", "1")
        server.kill()
        for ask in (session.get("a"), session.set("a", "2")):
            with pytest.raises(Unavailable):
                await ask
        server.start()
        assert await session.get("a") == "1"
        await storage.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_first_start_that_fails_anywhere_is_taken_up_again(
    kind: str, place: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "postgres":
        place = request.getfixturevalue("database_url")
    [steps] = sql_database.MIGRATIONS
    for n in range(len(steps) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(sql_database, "MIGRATIONS", ((*steps[:n], "SELECT nothing", *steps[n:]),))
            with pytest.raises(CannotStart, match="cannot be used"):
                open_storage(kind, place)
    storage = open_storage(kind, place)
    session = storage.session(new_payer())
    await session.set("a", "1")
    assert await session.get("a") == "1"
    await storage.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_newer_release_finds_what_an_older_one_stored(
    kind: str, place: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "postgres":
        place = request.getfixturevalue("database_url")
    payer = new_payer()
    older = open_storage(kind, place)
    await older.session(payer).set("a", "1")
    key = await older.cursor_key()
    await older.close()
    step = ("ALTER TABLE payers ADD COLUMN name TEXT",)
    with monkeypatch.context() as patch:
        patch.setattr(sql_database, "MIGRATIONS", (*sql_database.MIGRATIONS, step))
        for _ in range(2):
            newer = open_storage(kind, place)
            assert await newer.session(payer).get("a") == "1"
            assert await newer.cursor_key() == key
            await newer.close()
    with pytest.raises(CannotStart, match="newer release"):
        open_storage(kind, place)


@pytest.mark.parametrize(
    ("error", "times", "tried"),
    [
        (psycopg.errors.DeadlockDetected, 2, 3),
        (psycopg.errors.LockNotAvailable, 4, 5),
        (psycopg.errors.SerializationFailure, 5, 5),
        (psycopg.errors.UndefinedTable, 1, 1),
    ],
)
async def test_what_only_stood_in_the_way_is_tried_again(
    database_url: str, error: type[psycopg.Error], times: int, tried: int
) -> None:
    pool = PostgresPool(database_url)
    tries: list[int] = []

    def work(connection: Connection) -> str:
        connection.execute("INSERT INTO payers VALUES ('tried', 1, 1)")
        tries.append(1)
        if len(tries) <= times:
            raise error
        return "done"

    if tried > times:
        assert await pool.write(work) == "done"
    else:
        with pytest.raises(Unavailable):
            await pool.write(work)
    assert len(tries) == tried
    assert await pool.read(rows) == [0, int(tried > times)]
    await pool.close()


async def test_a_connection_that_was_cut_is_made_again(database_url: str) -> None:
    pool = PostgresPool(database_url)
    session = Storage(SqlStore(pool)).session(new_payer())
    await session.set("a", "1")
    with psycopg.connect(database_url, autocommit=True) as other:
        others = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
        cut = other.execute(
            f"{others} WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cut.fetchall() == [(True,)]
    assert await session.get("a") == "1"
    await session.set("a", "2")
    await pool.close()
