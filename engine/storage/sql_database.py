"""What the SQL databases of stores have in common: the tables, and how statements are run."""

import re
import secrets
from collections.abc import Callable
from itertools import chain
from typing import Any, Protocol, TypeVar

from engine.clock import Clock, system_clock
from engine.errors import CannotStart
from engine.storage.cursor import KEY_BYTES

T = TypeVar("T")
Values = dict[str, Any]
Rows = list[tuple[Any, ...]]

_META = "CREATE TABLE IF NOT EXISTS meta (version BIGINT NOT NULL, cursor_key BLOB NOT NULL)"
MIGRATIONS = (
    (
        """
        CREATE TABLE payers (
            payer TEXT NOT NULL PRIMARY KEY, entries BIGINT NOT NULL, bytes BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE entries (
            payer TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
            ttl_ms BIGINT NOT NULL, expires_ms BIGINT, PRIMARY KEY (payer, key)
        )
        """,
        "CREATE INDEX entries_expires_ms ON entries (expires_ms) WHERE expires_ms IS NOT NULL",
        """
        CREATE TABLE reservations (
            payer TEXT NOT NULL, id TEXT NOT NULL, entries BIGINT NOT NULL, bytes BIGINT NOT NULL,
            expires_ms BIGINT NOT NULL, alone BLOB, PRIMARY KEY (payer, id)
        )
        """,
        "CREATE TABLE grants (id TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL)",
    ),
)
"""What brings the schema from each version to the next. Times are milliseconds since the epoch."""


class Connection(Protocol):
    """What the drivers' connections have in common (PEP 249 has it on cursors)."""

    def execute(self, statement: Any, values: Any = ..., /) -> Any:
        """A cursor on the answer."""


class SqlDatabase(Protocol):
    """Where the tables are, brought up to date by `migrate`."""

    @property
    def parameter(self) -> str:
        """How a statement writes the parameter `name`."""

    @property
    def clock_sql(self) -> str | None:
        """The database's clock, in milliseconds; None if this process's is as good."""

    @property
    def cursor_key(self) -> bytes:
        """What `meta` has; made with the tables."""

    @property
    def shared(self) -> bool:
        """Whether other processes use it at the same time."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run it on a committed state. Raises `Unavailable`."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run it in a transaction; it is durable when this returns. Raises `Unavailable`."""

    async def close(self) -> None:
        """Close every connection."""


class Statements:
    """Runs statements of ours on a driver, at the time of `clock` or of the database's `clock_sql`.

    `:name` is a value, `:keys` as many as there are, and `:now` the time; `parameter` is how the
    driver writes the value of `name`.
    """

    def __init__(self, parameter: str, clock_sql: str | None, clock: Clock) -> None:
        self._parameter = parameter
        self._clock_sql = clock_sql
        self._clock = clock
        self._last_ms = 0
        self._known: dict[tuple[str, int], str] = {}

    def __call__(self, connection: Connection, statement: str, values: Values) -> Rows:
        keys = values.get("keys", ())
        known = self._known.get((statement, len(keys)))
        if known is None:
            known = self._known[statement, len(keys)] = self._translated(statement, len(keys))
        values = values | {f"key{n}": key for n, key in enumerate(keys)}
        if self._clock_sql is None:
            # A clock that is set back does not bring back what is over.
            values["now"] = self._last_ms = max(self._last_ms, self._clock())
        cursor = connection.execute(known, values)
        rows: Rows = [] if cursor.description is None else cursor.fetchall()
        return rows

    def _translated(self, statement: str, keys: int) -> str:
        def parameter(match: re.Match[str]) -> str:
            match match[1]:
                case "now" if self._clock_sql is not None:
                    return self._clock_sql
                case "keys":
                    names = (self._parameter.replace("name", f"key{n}") for n in range(keys))
                    return f"({', '.join(names)})"
            return self._parameter.replace("name", match[1])

        return re.sub(r":(\w+)", parameter, statement)


def migrate(connection: Connection, *, parameter: str, blob: str) -> bytes:
    """Bring the schema up to date, in the transaction of the caller; returns the key of cursors.

    `parameter` is as in `Statements`, and `blob` what the database calls bytes.

    Raises:
        CannotStart: it is of a newer release.
    """
    run = Statements(parameter, None, system_clock)
    run(connection, _META.replace("BLOB", blob), {})
    found = run(connection, "SELECT version, cursor_key FROM meta", {})
    version, key = found[0] if found else (0, secrets.token_bytes(KEY_BYTES))
    if not found:
        run(connection, "INSERT INTO meta VALUES (:version, :key)", {"version": 0, "key": key})
    if version > len(MIGRATIONS):
        raise CannotStart("the store is of a newer release")
    for statement in chain.from_iterable(MIGRATIONS[version:]):
        run(connection, statement.replace("BLOB", blob), {})
    run(connection, "UPDATE meta SET version = :version", {"version": len(MIGRATIONS)})
    return bytes(key)
