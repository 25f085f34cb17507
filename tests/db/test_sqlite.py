"""The data file: durable, one writer, readers that cannot write, and nobody else's file touched."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from engine.clock import ManualClock
from engine.db.claim import APPLICATION_ID, DirectoryLock, check_file
from engine.db.migrate import NEWEST
from engine.db.sqlite import CACHE_KIB, CHECKPOINT_PAGES, SqliteDatabase
from engine.engine import open_engine
from engine.errors import CannotStart
from tests.world import World, settings_for


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """The data file of an installation that was closed after a payment."""
    world = World(tmp_path / "data")
    world.pay(world.session(), 1)
    world.engine.close()
    return tmp_path / "data" / "ledger.sqlite3"


LOOKED_AT = """
import pathlib, sys, threading
from engine.db import claim
from engine.settings import Settings

claim.check_file = lambda _path: threading.Event().wait()
claim.Claim(Settings(data_dir=pathlib.Path(sys.argv[1])))
raise SystemExit("told to end")
"""


def test_who_is_told_to_end_does_not_wait_until_the_file_was_looked_at(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOOKED_AT, tmp_path / "data"], timeout=60, capture_output=True
    )
    assert (ended.returncode, ended.stderr) == (1, b"told to end\n")


def pragma(connection: sa.Connection, name: str) -> Any:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_the_writer_is_durable_and_readers_cannot_write(world: World) -> None:
    writer = world.engine.database.writer
    assert pragma(writer, "journal_mode") == "wal"
    assert pragma(writer, "synchronous") == 2, "FULL"
    assert pragma(writer, "foreign_keys") == 1
    assert pragma(writer, "cache_size") == -CACHE_KIB
    assert pragma(writer, "wal_autocheckpoint") == CHECKPOINT_PAGES
    assert pragma(writer, "application_id") == APPLICATION_ID
    writer.rollback()
    for _ in range(2):  # a new connection, and the same from the pool
        with world.engine.database.reading() as connection:
            assert pragma(connection, "journal_mode") == "wal"
            for statement in ("DELETE FROM meta", "PRAGMA user_version = 9", "CREATE TABLE t (x)"):
                with pytest.raises(sa.exc.OperationalError, match="readonly"):
                    connection.exec_driver_sql(statement)


def test_a_reader_sees_one_committed_state(world: World) -> None:
    view = world.session()
    count = "SELECT count(*) FROM decisions"
    with world.engine.database.reading() as connection:
        assert connection.exec_driver_sql(count).scalar_one() == 0
        world.pay(view, 1)
        assert connection.exec_driver_sql(count).scalar_one() == 0
    with world.engine.database.reading() as connection:
        assert connection.exec_driver_sql(count).scalar_one() == 1


def test_a_directory_has_one_engine_in_one_process(world: World) -> None:
    with pytest.raises(CannotStart, match="in use by another process"):
        open_engine(world.settings)
    assert world.pay(world.session(), 1).state == "captured", "the first is not disturbed"


def test_another_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    hold = (
        "import sys; from pathlib import Path; from engine.db.claim import DirectoryLock; "
        "DirectoryLock(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(CannotStart, match="TALLYSTICK_DATA_DIR"):
            open_engine(settings_for(directory))
        assert not (directory / "ledger.sqlite3").exists(), "nothing was made"
        holder.kill()
    open_engine(settings_for(directory)).close()


def test_the_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    DirectoryLock(tmp_path / "a" / "b").release()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("blocked", ["a file", "a file/data"])
def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path, blocked: str) -> None:
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(CannotStart, match="data directory"):
        open_engine(settings_for(tmp_path / blocked))
    assert (tmp_path / "a file").read_text() == "mine"


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%41b", "a%b", "é", "a&mode=rwc", ":a"])
def test_a_directory_of_any_name_holds_its_own_data(tmp_path: Path, name: str) -> None:
    settings = settings_for(tmp_path / name)
    open_engine(settings).close()
    open_engine(settings).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "ledger.sqlite3").stat().st_size > 0


def test_a_relative_directory_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    database = SqliteDatabase(Path("ledger.sqlite3"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with database.reading() as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID
    database.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_newest_schema_is_the_last_migration() -> None:
    migrations = resources.files("engine.db") / "migrations"
    assert ScriptDirectory(str(migrations)).get_heads() == [NEWEST]


def foreign(data_file: Path) -> None:
    data_file.unlink()
    with closing(sqlite3.connect(data_file)) as connection, connection:
        connection.execute("CREATE TABLE accounts (iban TEXT)")
        connection.execute("INSERT INTO accounts VALUES ('DE02')")


def of_another_program(data_file: Path) -> None:
    foreign(data_file)
    with closing(sqlite3.connect(data_file)) as connection:
        connection.execute("PRAGMA application_id = 252006674")


def newer(data_file: Path) -> None:
    with closing(sqlite3.connect(data_file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def of_before_the_first_release(data_file: Path) -> None:
    with closing(sqlite3.connect(data_file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")


def not_a_database(data_file: Path) -> None:
    data_file.write_bytes(b"These are the minutes of the annual general meeting.\n" * 100)


def cut_short(data_file: Path) -> None:
    data_file.write_bytes(data_file.read_bytes()[: data_file.stat().st_size // 2])


def scribbled_on(data_file: Path) -> None:
    content = bytearray(data_file.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 8] = b"\xff" * 8
    data_file.write_bytes(content)


def scribbled_on_where_no_start_looks(data_file: Path) -> None:
    with closing(sqlite3.connect(data_file)) as connection:
        find = "SELECT rootpage FROM sqlite_master WHERE name = 'outbox'"
        (page,) = connection.execute(find).fetchone()
    content = bytearray(data_file.read_bytes())
    content[(page - 1) * 4096 : (page - 1) * 4096 + 8] = b"\xff" * 8
    data_file.write_bytes(content)


def zeroed(data_file: Path) -> None:
    content = data_file.read_bytes()
    data_file.write_bytes(content[:4096] + bytes(len(content) - 4096))


OTHER_RELEASES = (newer, of_before_the_first_release)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (foreign, "not a Tallystick database"),
        (of_another_program, "not a Tallystick database"),
        (newer, "another release"),
        (of_before_the_first_release, "another release"),
        (not_a_database, "cannot be used: file is not a database"),
        (cut_short, "corrupt|malformed"),
        (scribbled_on, "corrupt|malformed"),
        (scribbled_on_where_no_start_looks, "corrupt|malformed"),
        (zeroed, "corrupt|malformed"),
    ],
)
def test_a_file_that_is_not_a_whole_one_of_ours_is_refused_and_left_as_it_is(
    data_file: Path, damage: Callable[[Path], None], why: str
) -> None:
    damage(data_file)
    before = data_file.read_bytes()
    for _ in range(2):
        with pytest.raises(CannotStart, match=why):
            open_engine(settings_for(data_file.parent))
    assert damage in OTHER_RELEASES or data_file.read_bytes() == before


def test_a_file_of_a_newer_release_keeps_its_content(data_file: Path) -> None:
    newer(data_file)
    with closing(sqlite3.connect(data_file)) as connection:
        before = list(connection.iterdump())
    with pytest.raises(CannotStart):
        open_engine(settings_for(data_file.parent))
    with closing(sqlite3.connect(data_file)) as connection:
        assert list(connection.iterdump()) == before


def test_an_empty_file_is_a_first_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite3").touch()
    world = World(tmp_path / "data", ManualClock(1_800_000_000_000))
    assert world.pay(world.session(), 1).state == "captured"
    world.engine.close()


class Stopped(BaseException):
    """The process ends here."""


def test_a_file_that_is_being_looked_at_is_only_opened_once_it_was_found_sound(
    tmp_path: Path,
) -> None:
    data_file = tmp_path / "ledger.sqlite3"
    for fault in (CannotStart("found"), sqlite3.DatabaseError("found"), None):
        checked: Future[None] = Future()
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(SqliteDatabase, data_file, checked)
            with pytest.raises(TimeoutError):
                opening.result(timeout=0.2)
            assert not data_file.exists()
            if fault is None:
                checked.set_result(None)
                opening.result().close()
            else:
                checked.set_exception(fault)
                with pytest.raises(CannotStart, match="found"):
                    opening.result()
    assert data_file.exists()


def test_a_look_at_the_file_of_a_killed_process_leaves_its_write_ahead_log(
    data_file: Path,
) -> None:
    killed = (
        "import os, sqlite3, sys; raw = sqlite3.connect(sys.argv[1]); "
        "raw.execute('DELETE FROM outbox'); raw.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed, str(data_file)], check=True)
    files = [data_file, data_file.with_name("ledger.sqlite3-wal")]
    before = [path.read_bytes() for path in files]
    assert before[1]
    check_file(data_file)
    assert [path.read_bytes() for path in files] == before


def test_a_first_start_that_ends_at_any_statement_is_taken_up_again(tmp_path: Path) -> None:
    for place in range(1, 100):
        data_file = tmp_path / f"{place}.sqlite3"
        statements = 0

        def stop(_connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
            nonlocal statements
            statements += 1
            if statements == place:  # noqa: B023
                raise Stopped(statement)

        sa.event.listen(sa.Engine, "before_cursor_execute", stop)
        try:
            SqliteDatabase(data_file).close()
            break
        except Stopped:
            pass
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", stop)
        database = SqliteDatabase(data_file)
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM records").scalar_one() == 0
        database.close()
    assert place > 20
