"""The log's records as they stand in the data file: read, chained and hashed a second time.

It shares no code with the engine: SQLite, JSON and SHA-256 from Python's own library, and the hash
of a record written down a second time.
"""

import hashlib
import json
import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.audit.committed import leaf as leaf_of

_NEW = """
SELECT id - id % 1048576, id % 1048576, body FROM records WHERE id >= ? + 1048576 ORDER BY id
"""


class Finding(AssertionError):
    """A promise that was broken, by its name, and how."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(promise, what)
        self.promise, self.what = promise, what

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


def require(held: bool, promise: str, what: object) -> None:
    """Go on only if it held."""
    if not held:
        raise Finding(promise, str(what))


@dataclass(frozen=True, slots=True)
class Record:
    """A record that nothing has explained yet."""

    stream: str
    seq: int
    time_ms: int
    kind: str
    body: dict[str, Any]


class LogFollower:
    """Follows the records of one data file through all restarts, once each."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.unexplained: deque[Record] = deque()
        self.roots = {0: hashlib.sha256().digest()}
        """By size, at the end of each batch."""
        self.digest = hashlib.sha256()
        self._peaks: list[tuple[int, bytes]] = []
        self._heads: dict[str, tuple[int, str | None]] = {}
        self._batch = 0
        self._last_leaves = b""
        self.time_ms = 0

    def follow(self, data_file: Path) -> None:
        """Read what is new.

        Raises:
            Finding: something is missing, was changed, or does not follow what was before.
        """
        with closing(_opened(data_file)) as connection:
            batches = dict(
                connection.execute(
                    "SELECT id, leaf_hashes FROM log_batches WHERE id > ?", (self._batch,)
                )
            )
            rows: dict[int, list[tuple[int, bytes]]] = {batch: [] for batch in sorted(batches)}
            for batch, position, raw in connection.execute(_NEW, (self._batch,)):
                rows.setdefault(batch, []).append((position, raw))
        for batch, found in rows.items():
            leaves = [self._take(batch, position, raw) for position, raw in found]
            same = b"".join(leaves) == batches.get(batch)
            require(same, "log", f"batch {batch} has {len(leaves)} records, not those it names")
            self._batch, self._last_leaves = batch, b"".join(leaves)
            self.roots[len(self.leaves)] = self.root()

    def _take(self, batch: int, position: int, raw: bytes) -> bytes:
        where = f"record {position} of batch {batch}"
        record = json.loads(raw)
        seq, prev = self._heads.get(record["stream"], (0, None))
        require((record["seq"], record["prev"]) == (seq, prev), "log", f"{where} follows no other")
        require(record["time_ms"] >= self.time_ms, "time", f"{where} is older than the one before")
        self.time_ms = record["time_ms"]
        leaf = leaf_of(raw)
        self._heads[record["stream"]] = (seq + 1, leaf.hex())
        self.leaves.append(leaf)
        self.digest.update(leaf)
        self._grow(leaf)
        self.unexplained.append(
            Record(record["stream"], seq, record["time_ms"], record["kind"], record["body"])
        )
        return leaf

    def _grow(self, leaf: bytes) -> None:
        """Keep the roots of the complete subtrees, the largest first (RFC 6962 §2.1)."""
        size, node = 1, leaf
        while self._peaks and self._peaks[-1][0] == size:
            node = hashlib.sha256(b"\1" + self._peaks.pop()[1] + node).digest()
            size *= 2
        self._peaks.append((size, node))

    def root(self) -> bytes:
        """The root of all records so far (RFC 6962 §2.1)."""
        if not self._peaks:
            return hashlib.sha256().digest()
        node = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            node = hashlib.sha256(b"\1" + left + node).digest()
        return node

    def recount(self, data_file: Path) -> None:
        """Nothing that was read before is gone, or has another in its place."""
        batch = (self._batch,)
        with closing(_opened(data_file)) as connection:
            [(count,)] = connection.execute(
                "SELECT count(*) FROM records WHERE id < ? + 1048576", batch
            )
            last = connection.execute("SELECT leaf_hashes FROM log_batches WHERE id = ?", batch)
            leaves = b"".join(hashes for (hashes,) in last)
        known = len(self.leaves)
        require(count == known, "durability", f"{known} records were there and {count} are left")
        require(leaves == self._last_leaves, "durability", f"batch {self._batch} is another")

    def reread(self, data_file: Path) -> None:
        """Every record is byte for byte what it was when it was read first."""
        with closing(_opened(data_file)) as connection:
            rows = connection.execute("SELECT body FROM records ORDER BY id")
            found = [leaf_of(raw) for (raw,) in rows]
        require(found == self.leaves, "log", "a record was changed after it was committed")


def rows(data_file: Path, sql: str) -> list[tuple[Any, ...]]:
    """Read the data file with a connection of its own."""
    with closing(_opened(data_file)) as connection:
        return connection.execute(sql).fetchall()


def _opened(data_file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{data_file.as_uri()}?mode=ro", uri=True)
