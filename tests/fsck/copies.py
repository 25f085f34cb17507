"""One database that is changed behind the engine's back, a cell at a time, and put right again."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from engine.audit.chain import Anchoring
from engine.fsck.check import Chain, examine
from engine.fsck.finding import Finding, stored

Row = dict[str, Any]


class Copy:
    """A database that a test may change; each change is undone after its examination."""

    def __init__(
        self,
        engine: sa.Engine,
        chain: Chain | None = None,
        anchored: Sequence[Anchoring] | None = None,
    ) -> None:
        self._engine = engine
        self._chain, self._anchored = chain, anchored

    def close(self) -> None:
        """Leave it."""
        self._engine.dispose()

    def rows(self, of: sa.Table) -> list[Row]:
        """All rows as they are stored."""
        query = sa.select(*stored(of)).order_by(*of.primary_key.columns)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def changed(self, *changes: sa.Executable) -> Iterator[list[Finding] | None]:
        """What is found after these changes; None if the database does not take them."""
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                for change in changes:
                    connection.execute(change)
            except (sa.exc.StatementError, TypeError):
                found = None
            else:
                report, settling = examine(connection, chain=self._chain, anchored=self._anchored)
                found = sorted({*report.findings, *settling})
            try:
                yield found
            finally:
                transaction.rollback()


def copy_of(file: Path, directory: Path) -> sa.Engine:
    """A copy of a data file, on one connection."""
    path = directory / "copy.sqlite3"
    shutil.copy(file, path)
    engine = sa.create_engine(
        f"sqlite:///{path}", poolclass=StaticPool, connect_args={"isolation_level": None}
    )
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def update(of: sa.Table, row: Row, values: Mapping[str, Any]) -> sa.Update:
    """Change cells of a row, whatever the type of the values."""
    return sa.update(of).where(*_keys(of, row)).values(_raw(values))


def delete(of: sa.Table, row: Row) -> sa.Delete:
    """Remove a row."""
    return sa.delete(of).where(*_keys(of, row))


def insert(of: sa.Table, row: Row) -> sa.Insert:
    """Add a row."""
    return sa.insert(of).values(_raw(row))


def others(value: Any, values: Sequence[Any]) -> list[Any]:
    """Values that could stand in place of one: of another row, off by one, empty, none at all."""
    return [
        other for other in _others(value, values) if (type(other), other) != (type(value), value)
    ]


def _others(value: Any, values: Sequence[Any]) -> Iterator[Any]:
    for other in values:
        if other is not None and other != value:
            yield other
            break
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 0)
    elif isinstance(value, str):
        yield from (_other_text(value), "")
    elif isinstance(value, bytes):
        yield bytes([*value[:-1], value[-1] ^ 1]) if value else b"\x00"
        yield b""
    else:
        yield from (1, "something", b"something")
    yield None


def _other_text(text: str) -> str:
    """A text of the same form that says something else."""
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict) and told:
        first = min(told)
        return json.dumps({**told, first: [told[first]]}, separators=(",", ":"), sort_keys=True)
    return text[:-1] + ("1" if text[-1:] == "0" else "0")


def _keys(of: sa.Table, row: Row) -> list[sa.ColumnElement[bool]]:
    return [column == row[column.name] for column in of.primary_key.columns]


def _raw(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: sa.bindparam(None, value, type_=sa.types.NullType()) for name, value in values.items()
    }
