"""Rows that go to a database together, in few different statements, which stay prepared.

Statements of 1, 2, 4, … rows insert any number of them. To send each row by itself, or to stream
them, takes an answer of the server or a change of the thread for each.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

ROWS_A_STATEMENT = 256
"""So many rows, a power of two, are inserted at once. SQLite takes 32,766 values a statement, and
PostgreSQL 65,535."""


class Inserts:
    """The statements that insert into the tables of one database, made when they are first needed:
    what SQLAlchemy does for every row takes longer than what the database does."""

    def __init__(self, dialect: sa.Dialect, place: Callable[[int], str]) -> None:
        """`place` is what a statement calls its n-th value, from 1 on."""
        self._names = dialect.identifier_preparer
        self._place = place
        self._of: dict[sa.Table, _Insert] = {}

    def statements(
        self, into: sa.Table, rows: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What inserts the rows, in their order, and the values of each statement.

        All rows of a table always have the same columns.
        """
        insert = self._of.get(into)
        if insert is None:
            columns = list(rows[0])
            names = ", ".join(map(self._names.quote, columns))
            begin = f"INSERT INTO {self._names.format_table(into)} ({names}) VALUES "  # noqa: S608
            insert = self._of[into] = _Insert(begin, columns, self._place)
        done = 0
        while left := len(rows) - done:
            count = min(ROWS_A_STATEMENT, 1 << (left.bit_length() - 1))
            some = map(insert.values, rows[done : done + count])
            yield insert.statements[count], tuple(itertools.chain.from_iterable(some))
            done += count


class _Insert:
    def __init__(self, begin: str, columns: list[str], place: Callable[[int], str]) -> None:
        self.values: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(*columns)
        numbers = itertools.count(1)
        each = [
            f"({', '.join(place(next(numbers)) for _ in columns)})" for _ in range(ROWS_A_STATEMENT)
        ]
        self.statements = {
            1 << power: begin + ", ".join(each[: 1 << power])
            for power in range(ROWS_A_STATEMENT.bit_length())
        }
