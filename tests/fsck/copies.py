"""One database that is changed behind the engine's back, a cell at a time, and put right again."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from engine.audit.chain import Anchoring
from engine.fsck.check import Chain, examine
from engine.fsck.finding import Finding


class Copy:
    """A copy of a data file on one connection; each change is undone after its examination."""

    def __init__(
        self,
        file: Path,
        directory: Path,
        chain: Chain | None = None,
        anchored: Sequence[Anchoring] | None = None,
    ) -> None:
        path = directory / "copy.sqlite3"
        shutil.copy(file, path)
        self._engine = sa.create_engine(
            f"sqlite:///{path}", poolclass=StaticPool, connect_args={"isolation_level": None}
        )
        sa.event.listen(self._engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
        self._chain, self._anchored = chain, anchored

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def rows(self, of: sa.Table) -> list[dict[str, Any]]:
        """All rows as they are stored, each with its `rowid`."""
        with self._engine.connect() as connection:
            columns = ", ".join(f'"{column.name}"' for column in of.columns)
            query = f'SELECT rowid AS "rowid ", {columns} FROM "{of.name}" ORDER BY 1'
            return [dict(row) for row in connection.exec_driver_sql(query).mappings()]

    @contextmanager
    def changed(self, *statements: tuple[str, tuple[Any, ...]]) -> Iterator[list[Finding] | None]:
        """What is found after these statements; None if the database does not take them."""
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                for statement, values in statements:
                    connection.exec_driver_sql(statement, values)
                report, settling = examine(connection, chain=self._chain, anchored=self._anchored)
                yield sorted({*report.findings, *settling})
            except sa.exc.IntegrityError:
                yield None
            finally:
                transaction.rollback()


def update(of: str, column: str, rowid: int, value: Any) -> tuple[str, tuple[Any, ...]]:
    """The statement that changes one cell."""
    return f'UPDATE "{of}" SET "{column}" = ? WHERE rowid = ?', (value, rowid)


def others(value: Any, values: Sequence[Any]) -> Iterator[Any]:
    """Values that could stand in place of one: of another row, off by one, empty, none at all."""
    for other in values:
        if other is not None and (type(other), other) != (type(value), value):
            yield other
            break
    if isinstance(value, int):
        yield from (value + 1, value - 1, 0)
    elif isinstance(value, str):
        yield from (_other_text(value), "")
    elif isinstance(value, bytes):
        yield bytes([*value[:-1], value[-1] ^ 1]) if value else b"\x00"
        yield b""
    else:
        yield from (1, "something")
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
    last = text[-1:]
    return text[:-1] + ("1" if last == "0" else "0")
