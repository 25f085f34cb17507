"""The file of a store: durable, one writer, and nobody else's file touched."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import CannotStart, Unavailable
from engine.storage.session import Session, Storage
from engine.storage.sql import SqlStore
from engine.storage.sql_database import Connection
from engine.storage.sqlite import APPLICATION_ID, READERS, SqliteFile
from tests.storage.stores import new_payer, open_storage

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "storage.sqlite3"


def pragma(connection: Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


async def test_the_writer_is_durable_and_readers_cannot_write(path: Path) -> None:
    file = SqliteFile(path)
    settings = ("journal_mode", "synchronous", "application_id")
    written = await file.write(lambda c: [pragma(c, name) for name in settings])
    assert written == ["wal", 2, APPLICATION_ID]
    for statement in ("DELETE FROM meta", "PRAGMA user_version = 9", "CREATE TABLE t (x)"):
        with pytest.raises(Unavailable) as refused:
            await file.read(lambda c: c.execute(statement))  # noqa: B023
        assert "readonly" in str(refused.value.__cause__)
    await file.close()


def opened_elsewhere(path: Path) -> str:
    """What another process says that opens the file."""
    opening = "import sys; from engine.storage.sqlite import SqliteFile; SqliteFile(sys.argv[1])"
    command = [sys.executable, "-c", opening, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


async def test_a_file_has_one_process(path: Path) -> None:
    storage = open_storage("sqlite", str(path))
    with pytest.raises(CannotStart, match="in use already"):
        SqliteFile(path)
    assert "in use already" in opened_elsewhere(path)
    session = storage.session(new_payer())
    await session.set("a", "1")
    assert await session.get("a") == "1", "the first is not disturbed"
    await storage.close()
    assert "in use already" not in opened_elsewhere(path)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE accounts (iban TEXT)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET version = 9999")


def not_a_database(path: Path) -> None:
    path.write_bytes(b"These are the minutes of the annual general meeting.\n" * 100)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (foreign, "not a store of Tallystick"),
        (newer, "newer release"),
        (not_a_database, "file is not a database"),
        (cut_short, "corrupt|malformed"),
    ],
)
def test_a_file_that_is_not_a_whole_one_of_ours_is_refused_and_left_as_it_is(
    path: Path, damage: Callable[[Path], None], why: str
) -> None:
    async def fill() -> None:
        storage = open_storage("sqlite", str(path))
        await storage.session(new_payer()).set("a", "1" * 10_000)
        await storage.close()

    asyncio.run(fill())
    damage(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(CannotStart, match=why):
            SqliteFile(path)
    assert path.read_bytes() == before


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(CannotStart, match=r"store .*/a file/storage.sqlite3: "):
        SqliteFile(tmp_path / "a file" / "storage.sqlite3")
    assert (tmp_path / "a file").read_text() == "mine"


def test_a_file_that_was_removed_is_not_written_to(path: Path) -> None:
    async def write() -> None:
        storage = open_storage("sqlite", str(path))
        session = storage.session(new_payer())
        await session.set("a", "1")
        await asyncio.to_thread(path.unlink)
        with pytest.raises(Unavailable):
            await session.set("a", "2")
        await storage.close()

    asyncio.run(write())
    assert not path.exists()


async def test_what_fails_takes_nothing_along_that_it_does_not_have_to(path: Path) -> None:
    file = SqliteFile(path)
    insert = "INSERT INTO payers VALUES ('{}', 1, 1)"

    def refuse(connection: Connection) -> None:
        connection.execute(insert.format("refused"))
        raise LookupError("refused")

    def fail(connection: Connection) -> None:
        connection.execute("SELECT nothing")

    def put(connection: Connection) -> str:
        connection.execute(insert.format("put"))
        return "done"

    # While one holds the thread up, the others wait and are committed together.
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    held = asyncio.create_task(
        file.write(lambda _: asyncio.run_coroutine_threadsafe(release.wait(), loop).result())
    )
    together = [asyncio.create_task(file.write(work)) for work in (refuse, put)]
    await asyncio.sleep(0)
    release.set()
    answers = await asyncio.gather(held, *together, return_exceptions=True)
    assert [type(answer) for answer in answers] == [bool, LookupError, str]
    payers = await file.read(lambda c: c.execute("SELECT payer FROM payers").fetchall())
    assert payers == [("put",)]
    with pytest.raises(Unavailable):
        await file.write(fail)
    assert await file.read(lambda c: pragma(c, "quick_check")) == "ok"
    await file.close()


async def test_a_failed_disk_ends_all_writing(path: Path) -> None:
    file = SqliteFile(path)

    def fail(_: Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    for work in (fail, lambda _: None):
        with pytest.raises(Unavailable):
            await file.write(work)
    with pytest.raises(Unavailable) as refused:
        await file.write(lambda _: None)
    assert "SQLITE_IOERR_FSYNC" in str(refused.value.__cause__)
    await file.close()


async def test_what_nobody_waits_for_any_more_is_not_begun(path: Path) -> None:
    file = SqliteFile(path)
    begun, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: Connection) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    held = asyncio.create_task(file.write(hold))
    await begun.wait()
    done: list[str] = []
    given_up = asyncio.create_task(file.write(lambda _: done.append("done")))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    release.set()
    assert await held
    await file.close()
    assert done == []


async def test_what_others_have_costs_a_payer_not_one_step(path: Path) -> None:
    file, steps = SqliteFile(path), [0]

    def step() -> int:
        steps[0] += 1
        return 0

    for _ in range(READERS):  # one after the other
        await file.read(lambda c: c.set_progress_handler(step, 1))  # type: ignore[attr-defined]
    await file.write(lambda c: c.set_progress_handler(step, 1))  # type: ignore[attr-defined]
    storage = Storage(SqlStore(file))
    alone, rich = storage.session(new_payer()), storage.session(new_payer())

    async def taken(session: Session) -> list[int]:
        """Instructions of SQLite's machine for each verb."""
        found = []
        for ask in (
            session.get("k"),
            session.has("k"),
            session.list(prefix="k"),
            session.get_many(["k", "l"]),
            session.check_set({"k": "2"}),
            session.reserve({"k": "2"}, "ours"),
            session.set_many({"k": "2"}, reservation="ours"),
            session.replace("k", "2", "3"),
            session.delete("k"),
            session.delete_many(["k", "l"]),
        ):
            before = steps[0]
            await ask
            found.append(steps[0] - before)
        return found

    await storage.session(new_payer()).set("other", "1", ttl_ms=1_000_000)
    for _ in range(READERS):  # each has prepared each statement
        before = await taken(alone)
    await rich.set_many(dict.fromkeys(("k", "k1", "k2", "l"), "1"), ttl_ms=1_000_000)
    assert await taken(alone) == before
    assert await taken(rich) != before, "it would be seen"
    await storage.close()
