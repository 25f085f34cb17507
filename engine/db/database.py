"""What the engine asks of a database, whichever it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from engine.audit.record import Head
from engine.errors import Unavailable

Read = Callable[[sa.Select[Any]], sa.CursorResult[Any]]
"""What reads rows: `execute` of a connection, or `read` of the writer's batch."""

ROWS_TOGETHER = 500
"""So many rows of a long list are read at once."""

BUDGETS = "budgets"
"""Whoever names this among the streams changes budgets, and does so while nobody else decides."""


@dataclass(frozen=True, slots=True)
class ChainReading:
    """What the process that leads last told the others of the chain.

    `time_ms` is the chain's clock and `read_ms` the database's when the chain was last read to its
    newest block, or None if that is in doubt; `doubt` is why, if that is known. `fault` is why
    nobody may decide any more.
    """

    time_ms: int
    read_ms: int | None
    doubt: Unavailable | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a transaction of the writer begins with.

    `batch` numbers it; of two that hold the same stream, the later one has the higher number.
    `heads` are the ends of the streams that it holds, and `last_ms` is the latest time of a record
    in them; `heads` is None if nobody else writes, so that whoever asks may remember them.
    `now_ms` is the database's clock, None where it has none of its own; `budgets_version` changes
    with the budgets.
    """

    batch: int
    heads: dict[str, Head] | None = None
    last_ms: int = 0
    now_ms: int | None = None
    budgets_version: int | None = None
    chain: ChainReading | None = None


class Database(Protocol):
    """One writing connection, for the ledger's thread alone, and readers for everybody."""

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too."""

    @property
    def writer(self) -> sa.Connection:
        """The writing connection."""

    def begin(self, streams: Sequence[str]) -> Turn:
        """Hold these streams, in a transaction that was just begun, until it ends."""

    def finish(
        self,
        rows: Mapping[sa.Table, Sequence[dict[str, Any]]],
        heads: Mapping[str, Head],
        now_ms: int,
    ) -> None:
        """Insert the last rows of the writer's transaction, which is ready to be committed then,
        or is committed: streams that it holds now end at `heads`, its records are of `now_ms`.
        """

    def sequencing(self) -> None:
        """Be, until the transaction ends, the only one who gives records their place."""

    def insert_many(self, into: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows that all have the same columns, in the writer's transaction."""

    def tidy(self) -> str | None:
        """Do what nobody has to wait for, once a commit was answered and before the next begins.

        Returns the name of a failure after which nothing may be acknowledged, if it came to one.
        """

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection that sees one consistent, committed state and cannot write."""

    def starting(self) -> AbstractContextManager[None]:
        """Be the only process that sets the installation up."""

    def leads(self) -> bool:
        """Whether this process is the one that speaks for all: at most one is."""

    def lasting(self, error: sa.exc.DBAPIError) -> str | None:
        """The name of a failure after which nothing may be acknowledged on the same handle."""

    def contended(self, error: sa.exc.DBAPIError) -> bool:
        """Whether others were in the way, so that it should be done again at once."""

    def present(self) -> bool:
        """Whether what was opened is still there."""

    def close(self) -> None:
        """Close every connection."""


def of_its_rows(error: sa.exc.StatementError) -> bool:
    """Whether what a command read or wrote is at fault, and not the database: others can go on.

    A value of another type than its column's never gets as far as the database. Text that is no
    UTF-8 is refused by Python's sqlite3, which has no name for that.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return True
    broken = isinstance(error, sa.exc.IntegrityError | sa.exc.DataError)
    return broken or "decode to UTF-8" in str(error.orig)


def all_rows(
    database: Database, query: sa.Select[Any], place: sa.ColumnElement[int]
) -> Iterator[Any]:
    """The rows of a query that are committed by now, in the order of `place`, which no two share.

    However many they are, `ROWS_TOGETHER` are in memory, and no transaction is open between.
    """
    newest = query.with_only_columns(sa.func.max(place))
    with database.reading() as connection:
        last = connection.execute(newest).scalar_one()
    query, above = query.add_columns(place.label("at")).order_by(place).limit(ROWS_TOGETHER), None
    while last is not None:
        some = (
            query.where(place <= last)
            if above is None
            else query.where(place <= last, place > above)
        )
        with database.reading() as connection:
            rows = connection.execute(some).all()
        yield from rows
        if len(rows) < ROWS_TOGETHER:
            return
        above = rows[-1].at
