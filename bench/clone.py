"""Rows that the engine wrote, to be written again under other keys: the same bytes, no engine.

With this SQLite alone is measured on exactly what we store (`sqlite_raw.py`), and a ledger is
filled with a million sessions in minutes (`growth.py`). Clones of a record repeat its bytes, so no
evidence could be made of them; everything else takes them for its own.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.db.sqlite import PRAGMAS
from engine.db.tables import BATCH_RECORDS_MAX

_NUMBERED_BY_BATCH = ("log_batches", "records", "decisions", "outbox")


@dataclass(frozen=True, slots=True)
class Template:
    """The rows that one call wrote into one table.

    `varied` has the positions of the columns of each unique index; clones differ in the last one,
    by `stride` if it is a number.
    """

    table: str
    rows: tuple[tuple[Any, ...], ...]
    varied: tuple[frozenset[int], ...]
    stride: int

    @property
    def statement(self) -> str:
        """What inserts one clone."""
        return f"INSERT INTO {self.table} VALUES ({', '.join('?' * len(self.rows[0]))})"

    def clones(self, number: int, first: Mapping[str, str] | None = None) -> Iterator[list[Any]]:
        """Clone number `number` (from 1) of each row.

        Values that `first` names are replaced before all else; a unique index that differs by
        that keeps its other columns as they are.
        """
        for row in self.rows:
            clone = renamed(row, first) if first else list(row)
            for index in self.varied:
                if all(clone[at] == row[at] for at in index):
                    at = max(index)
                    clone[at] = _differing(row[at], number, self.stride)
            yield clone


def renamed(row: Iterable[Any], names: Mapping[str, str]) -> list[Any]:
    """The row with other values where a value is one of `names`."""
    return [names.get(value, value) for value in row]


def _differing(value: Any, number: int, stride: int) -> Any:
    """Another value of the same size: the next integers, or another end of text or bytes."""
    if isinstance(value, int):
        return value + number * stride
    if isinstance(value, str):
        tail = f"~{number:011x}"  # no key or id of ours has a tilde
        return value[: -len(tail)] + tail
    if isinstance(value, bytes):
        return value[:-8] + number.to_bytes(8)
    return value  # NULL differs from NULL in a unique index


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the engine's own: as durable, and as fast."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def stored(path: Path) -> dict[str, set[tuple[Any, ...]]]:
    """All rows of every table, to find later what was written since."""
    with closing(connect(path)) as connection:
        return {
            table: set(connection.execute(f"SELECT * FROM {table}").fetchall())
            for (table,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        }


def templates(path: Path, before: Mapping[str, set[tuple[Any, ...]]]) -> list[Template]:
    """What was written into each table since `before` was `stored`."""
    found = []
    for table, rows in stored(path).items():
        if new := tuple(row for row in rows if row not in before[table]):
            with closing(connect(path)) as connection:
                varied = _unique_columns(connection, table)
            # Each clone is a batch of its own in the log.
            stride = BATCH_RECORDS_MAX if table in _NUMBERED_BY_BATCH else len(new)
            found.append(Template(table, new, varied, stride))
    return found


def _unique_columns(connection: sqlite3.Connection, table: str) -> tuple[frozenset[int], ...]:
    """The positions of the columns of each unique index, the primary key's among them."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    found = {frozenset(column[0] for column in columns if column[5])}
    for index in connection.execute(f"PRAGMA index_list({table})").fetchall():
        if index[2]:
            parts = connection.execute(f"PRAGMA index_info({index[1]})").fetchall()
            found.add(frozenset(part[1] for part in parts))
    return tuple(sorted(filter(None, found), key=sorted))
