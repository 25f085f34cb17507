"""A PostgreSQL database for `SqlStore`; any number of processes use it at once.

The tables are in a schema of their own, so the database may be the ledger's.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from queue import LifoQueue
from typing import Any, TypeVar

import psycopg

from engine.db.patience import LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, PatientConnection
from engine.errors import CannotStart, Unavailable
from engine.storage.sql_database import Connection, migrate

T = TypeVar("T")
Driver = psycopg.Connection[Any]
Within = AbstractContextManager[object]

SCHEMA = "tallystick_storage"
CONNECTIONS = 8
TRIES = 5
VERSION_MIN = 140_000
"""PostgreSQL 14, as `server_version_num` counts."""

_STARTING = (0x544C5354, 5)
"""The advisory lock of whoever makes the tables: "TLST", as in all locks of ours, and a number."""
_CONTENDED = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock and lock timeout: nothing was done, so it can be done again."""


class PostgresPool:
    """Connections to the database at `url`, such as `postgresql://user@host/name`.

    Raises:
        CannotStart: it cannot be reached or written to, would lose commits, or is of a newer
            release.
    """

    clock_sql = "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"
    parameter = "%(name)s"
    shared = True

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            with self._connected() as connection, connection.transaction():
                _check(connection)
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", _STARTING)
                there = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [SCHEMA])
                if there.fetchone() == (False,):
                    connection.execute(f"CREATE SCHEMA {SCHEMA}")
                self.cursor_key = migrate(connection, parameter=self.parameter, blob="BYTEA")
        except psycopg.Error as error:
            raise CannotStart(f"the store's database cannot be used: {error}") from error
        # The last one that was used is the next: what is lost is connected again at once.
        self._idle: LifoQueue[Driver | None] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(None)  # connected when first needed
        self._threads = ThreadPoolExecutor(CONNECTIONS, "storage")
        self._closed = False

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `SqlDatabase`. Each statement sees what is committed when it begins."""
        return await self._run(work, nullcontext)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `SqlDatabase`. After a lost connection it may have been done or not."""
        return await self._run(work, psycopg.Connection.transaction)

    async def close(self) -> None:
        """Finish what was begun, then close every connection."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._threads.shutdown)
            for _ in range(CONNECTIONS):
                connection = self._idle.get()
                if connection is not None:
                    connection.close()

    async def _run(
        self, work: Callable[[Connection], T], transaction: Callable[[Driver], Within]
    ) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(self._try, work, transaction)
        )

    def _try(self, work: Callable[[Connection], T], transaction: Callable[[Driver], Within]) -> T:
        for remaining in reversed(range(TRIES)):
            with self._borrowed() as connection:
                done = False
                try:
                    with transaction(connection):
                        result = work(connection)
                        done = True
                except psycopg.Error as error:
                    # What was lost before its end was never done. Later it may have been.
                    again = error.sqlstate in _CONTENDED or (connection.closed and not done)
                    if not (again and remaining):
                        raise Unavailable("the store cannot be reached now") from error
                else:
                    return result
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _borrowed(self) -> Iterator[Driver]:
        connection = self._idle.get()
        try:
            if connection is None or connection.closed:
                connection = self._connected()
            yield connection
        except psycopg.Error as error:
            raise Unavailable("the store cannot be reached now") from error
        finally:
            self._idle.put(connection)

    def _connected(self) -> Driver:
        return PatientConnection.connect(
            self._url,
            autocommit=True,  # a single statement needs no BEGIN and no COMMIT
            application_name="tallystick",
            options=(
                f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
                "-c idle_in_transaction_session_timeout=60000 -c synchronous_commit=on "
                f"-c search_path={SCHEMA}"
            ),
        )


def _check(connection: Driver) -> None:
    """Look before anything is written."""
    if int(_shown(connection, "server_version_num")) < VERSION_MIN:
        raise CannotStart("the store's database is older than PostgreSQL 14")
    for name in ("fsync", "full_page_writes"):
        if _shown(connection, name) != "on":
            raise CannotStart(f"the store's database would lose what is stored: set {name} = on")
    if _shown(connection, "in_hot_standby") != "off":
        raise CannotStart("the store's database is a standby, which cannot be written to")


def _shown(connection: Driver, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])
