"""The file behind the embedded chain: py-evm's key-value database in one SQLite file.

A block is there whole or not at all: what the EVM writes is kept in memory until `commit`, which is
one durable transaction (write-ahead log, synchronous=FULL). One connection in one process holds an
exclusive lock for its whole life, so a second process is refused instead of corrupting the file.
Every row carries a CRC-32: a damaged file raises, it never yields another chain.
"""

import contextlib
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from eth.db.backends.base import BaseDB

from engine.chain.gateway import ChainError, Log

_APPLICATION_ID = 0x54535443  # "TSTC": how `file` and this class tell the file from others
_SCHEMA_VERSION = 1
_SMALLEST_DATABASE_BYTES = 512
_LARGEST_INTEGER = 2**63 - 1
_SCHEMA = f"""
CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE node (key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE log (
    block_number INTEGER NOT NULL, log_index INTEGER NOT NULL, address TEXT NOT NULL,
    topics BLOB NOT NULL, data BLOB NOT NULL, block_hash BLOB NOT NULL, tx_hash BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (block_number, log_index)
) WITHOUT ROWID;
CREATE INDEX log_by_address ON log (address, block_number, log_index);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
"""


class BlockStore(BaseDB):
    """A key-value database whose writes become durable block by block.

    Raises:
        ChainError: the file is in use, damaged, or not one of ours; it is left as it was.
    """

    def __init__(self, path: Path | None) -> None:
        self._name = str(path) if path is not None else "in-memory chain"
        self._pending: dict[bytes, bytes | None] = {}
        if (
            path is not None
            and path.exists()
            and 0 < path.stat().st_size < _SMALLEST_DATABASE_BYTES
        ):
            # SQLite would take so short a file for an empty database and overwrite it.
            raise ChainError(f"{self._name}: this file is not an embedded chain; nothing changed")
        try:
            self._sql = sqlite3.connect(
                path if path is not None else ":memory:",
                timeout=0,
                isolation_level=None,
                check_same_thread=False,  # the embedded chain serialises access with its own lock
            )
        except sqlite3.Error as error:
            raise ChainError(f"{self._name}: cannot be opened: {error}") from error
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._sql.close()
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            cause = "is in use by another process" if busy else f"cannot be opened: {error}"
            raise ChainError(f"{self._name}: {cause}") from error
        except sqlite3.Error as error:
            self._sql.close()
            raise ChainError(f"{self._name}: damaged or not a chain file: {error}") from error
        except ChainError:
            self._sql.close()
            raise

    def _open(self) -> None:
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        with self._transaction("EXCLUSIVE"):
            self._identify()
        # Only now is the file known to be ours: changing the journal mode writes to it.
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = FULL")
        # The full check: a damaged index would hide a block that is there.
        if (found := self._sql.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise ChainError(f"{self._name}: damaged: {found}")

    def _identify(self) -> None:
        application_id = self._sql.execute("PRAGMA application_id").fetchone()[0]
        version = self._sql.execute("PRAGMA user_version").fetchone()[0]
        tables = self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if (application_id, version, tables) == (0, 0, 0):
            for statement in _SCHEMA.split(";"):
                self._sql.execute(statement)
        elif application_id != _APPLICATION_ID:
            raise ChainError(f"{self._name}: this file is not an embedded chain; nothing changed")
        elif version != _SCHEMA_VERSION:
            raise ChainError(f"{self._name}: written by another version (format {version})")

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._sql.execute(f"BEGIN {kind}")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            # After a failed COMMIT the transaction may already be over.
            with contextlib.suppress(sqlite3.Error):
                self._sql.execute("ROLLBACK")
            raise

    # py-evm's database interface

    def __getitem__(self, key: bytes) -> bytes:
        value = self._pending[key] if key in self._pending else self._stored(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._pending[key] = value

    def __delitem__(self, key: bytes) -> None:
        if key not in self:
            raise KeyError(key)
        self._pending[key] = None

    def _exists(self, key: bytes) -> bool:
        if key in self._pending:
            return self._pending[key] is not None
        return self._stored(key) is not None

    def _stored(self, key: bytes) -> bytes | None:
        row = self._sql.execute("SELECT value, crc FROM node WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value: bytes = row[0]
        if _crc(key, value) != row[1]:
            raise sqlite3.DatabaseError("a chain record does not match its checksum")
        return value

    # Blocks

    @property
    def is_empty(self) -> bool:
        """Whether no block, not even a genesis, was ever committed."""
        return self._sql.execute("SELECT 1 FROM node LIMIT 1").fetchone() is None

    def property(self, name: str) -> str | None:
        """Return a property of the chain that was set with its genesis."""
        row = self._sql.execute("SELECT value FROM property WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def commit(self, logs: Iterable[Log] = (), properties: Iterable[tuple[str, str]] = ()) -> None:
        """Make everything written since the last commit durable, with the logs of its block.

        Raises:
            sqlite3.Error: nothing of it was stored; call `discard`.
        """
        deleted = [(key,) for key, value in self._pending.items() if value is None]
        written = [
            (key, value, _crc(key, value))
            for key, value in self._pending.items()
            if value is not None
        ]
        with self._transaction("IMMEDIATE"):
            self._sql.executemany("DELETE FROM node WHERE key = ?", deleted)
            self._sql.executemany("INSERT OR REPLACE INTO node VALUES (?, ?, ?)", written)
            self._sql.executemany(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_log_row, logs)
            )
            self._sql.executemany("INSERT INTO property VALUES (?, ?)", properties)
        self._pending.clear()

    def discard(self) -> None:
        """Forget everything written since the last commit."""
        self._pending.clear()

    def logs(self, from_block: int, to_block: int, addresses: Collection[str] | None) -> list[Log]:
        """Return the logs of a block range in chain order, of these emitters (None: all)."""
        query = "SELECT * FROM log WHERE block_number BETWEEN ? AND ?"
        arguments: list[int | str] = [
            min(from_block, _LARGEST_INTEGER),
            min(to_block, _LARGEST_INTEGER),
        ]
        if addresses is not None:
            query += f" AND address IN ({', '.join('?' * len(addresses))})"
            arguments += addresses
        rows = self._sql.execute(query + " ORDER BY block_number, log_index", arguments)
        return [_log(row) for row in rows]

    def close(self) -> None:
        """Release the file and its lock. Closing twice is harmless."""
        self._sql.close()


_LogRow = tuple[int, int, str, bytes, bytes, bytes, bytes, int]


def _crc(*parts: bytes) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def _log_crc(log: Log) -> int:
    place = f"{log.block_number}/{log.log_index}/{log.address}".encode()
    return _crc(place, *log.topics, log.data, log.block_hash, log.tx_hash)


def _log_row(log: Log) -> _LogRow:
    return (
        log.block_number,
        log.log_index,
        log.address,
        b"".join(log.topics),
        log.data,
        log.block_hash,
        log.tx_hash,
        _log_crc(log),
    )


def _log(row: _LogRow) -> Log:
    number, log_index, address, topics, data, block_hash, tx_hash, crc = row
    log = Log(
        address=address,
        topics=tuple(topics[at : at + 32] for at in range(0, len(topics), 32)),
        data=data,
        block_number=number,
        block_hash=block_hash,
        tx_hash=tx_hash,
        log_index=log_index,
    )
    if _log_crc(log) != crc:
        raise sqlite3.DatabaseError("a log does not match its checksum")
    return log
