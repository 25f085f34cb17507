"""The write-ahead log is folded into the data file between commits, once answers were given."""

import resource
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, pairwise, repeat
from pathlib import Path
from unittest.mock import Mock, call

import pytest
from structlog.testing import capture_logs

from engine.errors import Unavailable
from engine.ledger.payment import Payment
from engine.sessions.session import SessionView
from tests.ledger.asking import ask
from tests.world import World

FOLD = "PRAGMA wal_checkpoint(PASSIVE)"
FOLD_AND_WAIT = "PRAGMA wal_checkpoint(RESTART)"
FOLD_ALL = "PRAGMA wal_checkpoint(TRUNCATE)"
PAGE_BYTES = 4096 + 24
"""With what stands before it in the log."""
PATIENCE_S = 60
PAYMENTS_MAX = 400
"""Which make the log far longer than any test needs it to be."""


def folded(world: World, directory: Path) -> int:
    """How many decisions are in the data file alone, without the write-ahead log."""
    alone = shutil.copyfile(str(world.store), directory / "alone.sqlite3")
    with closing(sqlite3.connect(f"{alone.as_uri()}?immutable=1", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM decisions").fetchone()
    return int(count)


def test_it_is_folded_after_so_many_rows_and_after_the_answer(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session()
    rows = world.raw.total_changes
    world.pay(view, 1)
    world.engine.remaining(view)  # one more batch: what came after that answer is through
    rows = world.raw.total_changes - rows
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 5 * rows)
    world.pay(view, 1)
    world.engine.remaining(view)
    asked: list[Future[Payment]] = []
    answered: list[list[bool]] = []

    def about_to_run(statement: str) -> None:
        if statement == FOLD:
            answered.append([each.done() for each in asked])

    world.raw.set_trace_callback(about_to_run)
    for _ in range(12):
        asked.append(ask(world, view, 1))
        asked[-1].result()
        world.engine.remaining(view)
    world.raw.set_trace_callback(None)
    assert [len(each) for each in answered] in ([each, each + 5] for each in range(1, 6))
    assert all(map(all, answered))
    assert folded(world, tmp_path) == len(answered[-1]) + 2, "all that was committed by then"


def test_a_file_that_cannot_be_written_ends_it_though_nobody_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may write no file beyond what the data file has: a real I/O error."""
    view = world.session()
    world.raw.execute(FOLD_ALL).fetchall()
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 1_000_000)
    size = Path(world.store).stat().st_size
    while world.raw.execute("PRAGMA page_count").fetchone()[0] * 4096 == size:
        world.pay(view, 1)  # until a page has to be added to the file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 1)
    with capture_logs() as logs:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            kept = world.pay(view, 1, key="kept")
            with pytest.raises(Unavailable, match=r"SQLITE_IOERR.*restart"):
                world.pay(view, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    [failed] = [line for line in logs if line["event"] == "checkpoint_failed"]
    assert failed["log_level"] == "error"
    assert failed["reason"].startswith("SQLITE_IOERR")
    assert not world.engine.ready()["ready"]
    world.reopen()
    again = world.pay(view, 1, key="kept")
    assert (again.id, again.replayed) == (kept.id, True)


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    "fault", [sqlite_error("SQLITE_FULL"), MemoryError()], ids=["on the disk", "in memory"]
)
def test_where_there_is_no_room_it_is_folded_another_time(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    view = world.session()
    done = Mock(fetchone=Mock(return_value=(0, 1, 1)))
    fold = Mock(side_effect=chain([fault], repeat(done)))
    connection = Mock(total_changes=0, execute=fold)
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 0)
    monkeypatch.setattr(world.engine.database, "_raw", connection)
    for _ in range(3):
        assert ask(world, view, 1).result(PATIENCE_S).state == "captured"
    assert fold.call_args_list[:2] == [call(FOLD)] * 2
    assert world.engine.ready()["ready"]


def test_it_is_folded_when_the_count_of_rows_begins_again(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    view = world.session()
    world.raw.execute(FOLD_ALL).fetchall()
    monkeypatch.setattr(world.engine.database, "_folded", 2**31 - 1)
    world.pay(view, 1)
    world.engine.remaining(view)
    assert folded(world, tmp_path) == 1


def test_a_file_that_others_read_is_folded_another_time(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    view = world.session()
    world.raw.execute(FOLD_ALL).fetchall()
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 1)
    with world.engine.database.reading() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM decisions").scalar_one() == 0
        world.pay(view, 1)
        world.engine.remaining(view)
        assert folded(world, tmp_path) == 0, "the reader still sees what was"
    world.pay(view, 1)
    world.engine.remaining(view)
    world.engine.remaining(view)
    assert folded(world, tmp_path) == 2
    assert world.engine.writer.fault is None


@contextmanager
def folds(world: World, waits: Callable[[], object] = list) -> Iterator[list[int]]:
    """How long the log is, in pages, each time that whoever reads is waited for."""
    seen: list[int] = []

    def about_to_run(statement: str) -> None:
        if statement == FOLD_AND_WAIT:
            seen.append(Path(f"{world.store}-wal").stat().st_size // PAGE_BYTES)
            waits()

    world.raw.set_trace_callback(about_to_run)
    yield seen
    world.raw.set_trace_callback(None)


@pytest.fixture
def long_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> SessionView:
    """A session whose payments are folded one by one into a log that is long from 100 pages on."""
    view = world.session()
    world.raw.execute(FOLD_ALL).fetchall()
    monkeypatch.setattr("engine.db.sqlite.CHECKPOINT_ROWS", 1)
    monkeypatch.setattr("engine.db.sqlite.LONG_PAGES", 100)
    monkeypatch.setattr(world.engine.database, "_long", 100)
    return view


def test_a_log_that_is_long_because_somebody_always_reads_is_begun_again(
    world: World, long_soon: SessionView
) -> None:
    reading: deque[ExitStack] = deque()
    waited_for, turn = threading.Event(), threading.Lock()

    def read() -> None:
        """The next one begins before the last one ends, and sees what is there by then."""
        with turn:
            if waited_for.is_set():
                return
            reading.append(ExitStack())
            reader = reading[-1].enter_context(world.engine.database.reading())
            reader.exec_driver_sql("SELECT count(*) FROM decisions").scalar_one()
            while len(reading) > 1:
                reading.popleft().close()

    def end() -> None:
        waited_for.wait(PATIENCE_S)
        with turn:
            reading.pop().close()

    read()
    with ThreadPoolExecutor(1) as pool, folds(world, waited_for.set) as seen:
        over = pool.submit(end)
        while not over.done():
            world.pay(long_soon, 1)
            read()
        for _ in range(20):
            world.pay(long_soon, 1)
        world.engine.remaining(long_soon)
    assert len(seen) == 1
    assert Path(f"{world.store}-wal").stat().st_size // PAGE_BYTES == seen[0]


def test_who_reads_for_long_is_not_waited_for_again_and_again(
    world: World, long_soon: SessionView
) -> None:
    world.raw.execute("PRAGMA busy_timeout = 1")
    with world.engine.database.reading() as reader, folds(world) as seen:
        reader.exec_driver_sql("SELECT count(*) FROM decisions").scalar_one()
        for _ in range(PAYMENTS_MAX):
            assert world.pay(long_soon, 1).state == "captured"
            if len(seen) == 3:
                break
    assert 100 <= seen[0] < 120
    assert all(2 * before <= after < 2 * before + 20 for before, after in pairwise(seen))
    assert len(seen) == 3


def test_after_one_who_read_for_long_a_log_is_long_at_the_same_length_as_ever(
    world: World, long_soon: SessionView
) -> None:
    world.raw.execute("PRAGMA busy_timeout = 1")
    for _ in range(2):
        with world.engine.database.reading() as reader, folds(world) as seen:
            reader.exec_driver_sql("SELECT count(*) FROM decisions").scalar_one()
            for _ in range(PAYMENTS_MAX):
                world.pay(long_soon, 1)
                if seen:
                    break
        assert 100 <= seen[0] < 150, "the file is as long as the log was before"
        with folds(world) as seen:
            for _ in range(3):
                world.pay(long_soon, 1)
            world.engine.remaining(long_soon)
        assert not seen, "it is begun again without waiting"
