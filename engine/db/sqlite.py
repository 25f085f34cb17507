"""Open the SQLite data file: one process, one writing connection, read-only readers beside it.

Releases 3.7.0 to 3.51.2 of SQLite can corrupt a write-ahead log when two connections write and
checkpoint at once, and Debian 12 ships 3.40. Here only one connection can write: the directory is
locked for one process (`flock`), that process opens one writing connection, and every other
connection is opened with `mode=ro`, which neither writes nor checkpoints.
See docs/decisions/0002-one-sqlite-writer.md.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from engine.audit.record import Head
from engine.db.claim import APPLICATION_ID, check_file
from engine.db.database import Turn, of_its_rows
from engine.db.inserts import Inserts
from engine.db.migrate import migrate
from engine.db.tables import BATCH_RECORDS_MAX, LogBatch, table
from engine.errors import CannotStart

_PASSING_FAULTS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_CONSTRAINT")
_batches = table(LogBatch)

CHECKPOINT_ROWS = 2_048
"""After so many changed rows, 2 MiB in large batches and 15 one by one, the write-ahead log is
folded into the file: after an answer was given and not, as SQLite does, before. What it takes is
mostly the disk's time, in which answers are sent and requests read; more rows would take longer
than those do."""
CHECKPOINT_PAGES = 4096
"""Whatever the rows are, at 16 MiB SQLite folds it as a part of a commit."""
LONG_PAGES = 16_384
"""64 MiB long the log gets only where somebody reads at every moment, so that it is never begun
again. Then payments wait for whoever reads; for one who reads for long they do once more when it is
twice as long."""
CACHE_KIB = 32_768
"""Of pages that the writer has at hand. The end of each session's index is a page of its own: with
SQLite's 2 MiB those of a thousand sessions would be read from the file again for each batch."""
STATEMENTS_PREPARED = 512
"""So many the writer keeps: inserts into each table of each length, and all others."""
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL would lose acknowledged commits when the power fails
    "foreign_keys = ON",
    "temp_store = MEMORY",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"cache_size = -{CACHE_KIB}",
)
"""How the writing connection is set."""


class SqliteDatabase:
    """The data file, as a `Database` that one process has for itself."""

    shared = False

    def __init__(self, path: Path, checked: Future[None] | None = None) -> None:
        """Open or create `path` and bring its schema up to date.

        It is checked before, here or where `checked` comes from.

        Raises:
            CannotStart: the file is corrupt, of another program, or of a newer release.
        """
        path = self._path = path.resolve()
        self._batch = self._last_ms = self._folded = 0
        self._long = LONG_PAGES
        self._writing = writing_engine(path)
        self._inserts = Inserts(self._writing.dialect, lambda _: "?")
        self._reading = sa.create_engine(
            sa.URL.create("sqlite", database=path.as_uri(), query={"mode": "ro", "uri": "true"}),
            poolclass=QueuePool,
            hide_parameters=True,
            pool_size=4,
            connect_args={"check_same_thread": False, "isolation_level": None},
        )
        sa.event.listen(self._reading, "begin", lambda c: c.exec_driver_sql("BEGIN"))
        try:
            if checked is None:
                check_file(path)
            else:
                checked.result()
            self._migrate()
            self.writer = self._writing.connect()
            self._raw: Any = self.writer.connection.dbapi_connection
            self._remember()
        except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
            self._writing.dispose()
            raise CannotStart(
                f"data file {path} cannot be used: {getattr(error, 'orig', error)}"
            ) from error
        except CannotStart:
            self._writing.dispose()
            raise

    def _migrate(self) -> None:
        with self._writing.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.commit()
            migrate(connection, "data file")

    def _remember(self) -> None:
        with self.reading() as connection:
            batch = connection.execute(sa.select(_batches).order_by(_batches.c.id.desc())).first()
        if batch is not None:
            self._batch, self._last_ms = batch.id, batch.time_ms

    def begin(self, streams: Sequence[str]) -> Turn:
        """Nobody else writes, so nothing needs to be held."""
        del streams
        self._batch += BATCH_RECORDS_MAX
        return Turn(batch=self._batch, last_ms=self._last_ms)

    def finish(
        self,
        rows: Mapping[sa.Table, Sequence[dict[str, Any]]],
        heads: Mapping[str, Head],
        now_ms: int,
    ) -> None:
        """Insert what is left; who writes alone remembers where streams end."""
        del heads, now_ms
        for into, values in rows.items():
            self.insert_many(into, values)

    def sequencing(self) -> None:
        """Whoever has the one writer is alone."""

    @contextmanager
    def starting(self) -> Iterator[None]:
        """The directory is locked already."""
        yield

    def leads(self) -> bool:
        """There is nobody else."""
        return True

    def lasting(self, error: sa.exc.DBAPIError) -> str | None:
        """See `lasting_fault`."""
        return lasting_fault(error)

    def contended(self, error: sa.exc.DBAPIError) -> bool:
        """Nobody else writes."""
        del error
        return False

    def insert_many(self, into: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows that all have the same columns, in the writer's transaction.

        Python's sqlite3 gives the interpreter away for each statement that it runs, and for each
        row of `executemany`, and has to wait for whoever took it.
        """
        for statement, values in self._inserts.statements(into, rows):
            self.writer.exec_driver_sql(statement, values)

    def tidy(self) -> str | None:
        """Fold the write-ahead log into the file, if it has grown.

        SQLite by itself would do so within a commit, and say nothing of a sync that failed.
        """
        changed = self._raw.total_changes  # of 32 bits: from 2**31 on below zero
        if abs(changed - self._folded) >= CHECKPOINT_ROWS:
            self._folded = changed
            try:
                _, pages, _ = self._raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages < LONG_PAGES:
                    self._long = LONG_PAGES
                elif pages >= self._long:
                    self._raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                    self._long = 2 * pages  # if it is not begun again even now
            except MemoryError:  # which is what Python makes of SQLITE_NOMEM
                return None
            except sqlite3.Error as error:
                return _lasting(error)
        return None

    def present(self) -> bool:
        """Whether the file is still there; a removed one could be written to and be lost."""
        return self._path.exists()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one consistent, committed state and cannot write."""
        with self._reading.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log into the file."""
        self._reading.dispose()
        self.writer.close()
        self._writing.dispose()


def lasting_fault(error: sa.exc.DBAPIError) -> str | None:
    """The name of a failure after which nothing may be acknowledged on the same handle.

    After a failed fsync, for one, nobody knows what is on the disk.
    """
    return None if of_its_rows(error) else _lasting(error.orig)


def _lasting(error: BaseException | None) -> str | None:
    name = str(getattr(error, "sqlite_errorname", None))
    return None if name.startswith(_PASSING_FAULTS) else name


def writing_engine(path: Path) -> sa.Engine:
    """One connection that writes a file durably, in write-ahead mode, for whoever has it alone."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        hide_parameters=True,  # what is stored is nobody's business in a log
        connect_args={
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": 5,
            "cached_statements": STATEMENTS_PREPARED,
        },
    )
    sa.event.listen(engine, "connect", _prepare_writer)
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _prepare_writer(connection: Any, _record: object) -> None:
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
