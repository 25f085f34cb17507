"""A file of SQLite for `SqlStore`: one process, one writing connection, readers that cannot write.

Releases 3.7.0 to 3.51.2 of SQLite can corrupt a write-ahead log when two connections write and
checkpoint at once, so only one can: a lock beside the file (`flock`) keeps other processes away,
and one thread has the one connection that is not `mode=ro`. What waits for it is committed
together; each piece of work has a savepoint of its own, so what is refused takes nothing along.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from engine.errors import CannotStart, Unavailable
from engine.storage.sql_database import Connection, migrate

T = TypeVar("T")
Job = tuple["Future[Any]", Callable[[Connection], Any]]

APPLICATION_ID = 0x54_4C_53_4B  # "TLSK", kept in the file's header
BATCH_MAX = 256
READERS = 4
_PASSING_FAULTS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_CONSTRAINT")


class SqliteFile:
    """The file `path`, made if it is not there.

    Raises:
        CannotStart: the file is in use, corrupt, of another program, or of a newer release.
    """

    clock_sql = None
    shared = False
    parameter = ":name"

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path).resolve()
        self._lock = _locked(self._path)
        try:
            if self._path.exists():
                self._check()
            self._writing = self._opened()
            self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
            for _ in range(READERS):
                self._idle.put(self._reader())
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise CannotStart(f"store {self._path} cannot be used: {error}") from error
        except CannotStart:
            os.close(self._lock)
            raise
        self._closed = False
        self._fault: str | None = None
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._writer = threading.Thread(target=self._write_all, name="storage-writer", daemon=True)
        self._writer.start()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `SqlDatabase`."""
        self._require_open()
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, partial(self._read, work)
        )

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `SqlDatabase`."""
        self._require_open()
        done: Future[T] = Future()
        self._waiting.put((done, work))
        return await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Finish what waits, then close every connection and let another process have the file."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            await asyncio.to_thread(self._writer.join)
            await asyncio.to_thread(self._readers.shutdown)
            for _ in range(READERS):
                self._idle.get().close()
            self._writing.close()
            os.close(self._lock)

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")

    def _require_sound(self) -> None:
        """A removed file could be written to and be lost."""
        if self._fault is not None or not self._path.exists():
            raise Unavailable(f"the store's file failed: {self._fault or 'it is gone'}")

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = self._idle.get()
        try:
            return work(connection)
        except sqlite3.Error as error:
            raise Unavailable("the store cannot be read now") from error
        finally:
            self._idle.put(connection)

    def _write_all(self) -> None:
        while True:
            jobs = [self._waiting.get()]
            while len(jobs) < BATCH_MAX:
                try:
                    jobs.append(self._waiting.get_nowait())
                except Empty:
                    break
            if wanted := [job for job in jobs if job is not None]:
                self._commit(wanted)
            if None in jobs:
                return

    def _commit(self, jobs: list[Job]) -> None:
        """Do all of them in one transaction; nobody hears of it before it is on the disk."""
        jobs = [job for job in jobs if job[0].set_running_or_notify_cancel()]
        try:
            self._require_sound()
            self._writing.execute("BEGIN IMMEDIATE")
            answers = [self._answer(done, work) for done, work in jobs]
            self._writing.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 (the thread must go on)
            answers = self._failed(error, jobs)
        for answer in answers:
            answer()

    def _answer(self, done: "Future[T]", work: Callable[[Connection], T]) -> Callable[[], None]:
        """Do the work, or none of it; returns what says so."""
        self._writing.execute("SAVEPOINT work")
        try:
            result = work(self._writing)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 (whoever asked gets it)
            self._writing.execute("ROLLBACK TO work")
            return partial(done.set_exception, error)
        self._writing.execute("RELEASE work")
        return partial(done.set_result, result)

    def _failed(self, error: Exception, jobs: list[Job]) -> list[Callable[[], None]]:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name and not name.startswith(_PASSING_FAULTS):
            # After a failed fsync, for one, nobody knows what is on the disk.
            self._fault = name
        if self._writing.in_transaction:
            self._writing.rollback()
        refused = Unavailable("the store cannot be written to now")
        refused.__cause__ = error
        return [partial(done.set_exception, refused) for done, _ in jobs]

    def _opened(self) -> sqlite3.Connection:
        """The connection that writes, and the schema up to date."""
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",  # NORMAL would lose acknowledged commits in a power cut
                "temp_store = MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.cursor_key = migrate(connection, parameter=self.parameter, blob="BLOB")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    def _check(self) -> None:
        """Look before anything is written: a file that is not ours stays as it is."""
        with closing(self._reader()) as connection:
            [ours] = connection.execute("PRAGMA application_id").fetchone()
            [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and ours != APPLICATION_ID:
                raise CannotStart(f"file {self._path} is not a store of Tallystick")
            [finding] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise CannotStart(f"store {self._path} is corrupt: {finding}")


def _locked(path: Path) -> int:
    """Hold the lock beside `path`. Closing the file itself would let go of SQLite's own locks."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"store {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CannotStart(f"store {path} is in use already") from error
    return descriptor
