"""The one store of an engine: which it is, and who takes from the disk what is over."""

import asyncio
import threading

from engine.errors import CannotStart
from engine.settings import Settings
from engine.storage.load import load_store
from engine.storage.memory import MemoryStore
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sql_database import SqlDatabase
from engine.storage.store import Store

FILE = "storage.sqlite3"
SWEEP_INTERVAL_S = 300
"""How often what is over leaves the disk; nobody sees it meanwhile."""


class Keeper:
    """The store that `TALLYSTICK_STORE` names, open from when it is first asked for until `close`.

    A store belongs to the event loop of whoever uses it, which closes it before it ends; whoever
    asks later has it opened again. The rest may be called from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._opened: Storage | None = None

    def storage(self) -> Storage:
        """The store, opened.

        Raises:
            CannotStart: it cannot be.
        """
        with self._lock:
            if self._opened is None:
                self._opened = Storage(_store(self._settings))
            return self._opened

    def sweep(self) -> int:
        """Take some of what is over from the disk, where that is ours to do; how many entries.

        Raises:
            Unavailable: the store cannot be written to.
        """
        with self._lock:
            if self._opened is None or not isinstance(self._opened.store, SqlStore):
                return 0
            return asyncio.run(self._opened.store.sweep())

    async def close(self) -> None:
        """Close the store if it is open."""
        await asyncio.to_thread(self._lock.acquire)  # a sweep may hold it
        try:
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened.close()
        finally:
            self._lock.release()

    def close_now(self) -> None:
        """`close`, for who has no event loop."""
        if self._opened is not None:
            asyncio.run(self.close())


def _store(settings: Settings) -> Store:
    reference = "sql" if settings.store is None else settings.store.get_secret_value()
    if reference == "memory":
        return MemoryStore()
    if reference == "sql":
        return SqlStore(_database(settings))
    if "://" not in reference:
        return load_store(reference)

    from engine.storage.valkey import ValkeyStore  # its client is slow to import

    try:
        return ValkeyStore(reference)
    except ValueError:  # whose text may hold a part of the URL, which has a password in it
        raise CannotStart("TALLYSTICK_STORE: takes a URL such as valkey://host:6379/0") from None


def _database(settings: Settings) -> SqlDatabase:
    """The server's own: a file beside the ledger's, or the same database of PostgreSQL."""
    if settings.database is None:
        from engine.storage.sqlite import SqliteFile

        return SqliteFile(settings.data_dir / FILE)

    from engine.storage.postgres import PostgresPool

    return PostgresPool(settings.database.get_secret_value())
