"""How long a PostgreSQL server may say nothing before it counts as one that does not answer.

Its own timeouts bound what a living server does. One that stalls, or that cannot be reached any
more, keeps none of them, and libpq would wait for it without end.
"""

from collections.abc import Generator
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 30_000
ANSWER_S = STATEMENT_TIMEOUT_MS / 1_000 + 5
"""A statement that takes this long has been ended by a server that lives."""
BRIEF_S = 10.0
"""For what a server that lives answers at once: that it is there, and who leads."""
CHECK_S = 600.0
"""For what reads a whole table in one statement, which no timeout of the server ends."""
NETWORK: dict[str, Any] = {
    "connect_timeout": 10,
    # A host that is gone says nothing, not even that; Unix sockets leave these aside.
    "tcp_user_timeout": 30_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
"""What a connection is opened with unless its URL says otherwise (libpq, "Parameter Key Words")."""

_T = TypeVar("_T")


class Silent(psycopg.OperationalError):
    """The server has said nothing for too long; what it was asked may still be done."""


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed once its server has said nothing for too long."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.patience_s: float | None = ANSWER_S
        """How long its server may say nothing; None: as long as it likes."""

    @classmethod
    def connect(cls, conninfo: str = "", **named: Any) -> Self:
        """Like psycopg's."""
        given = conninfo_to_dict(conninfo) | named
        network = {name: value for name, value in NETWORK.items() if name not in given}
        return super().connect(conninfo, **network, **named)

    def wait(self, gen: PQGen[_T], *arguments: Any, **named: Any) -> _T:
        """Like psycopg's, through which it waits for all that a server answers."""
        if self.patience_s is not None:
            gen = _unless_silent(gen, self.patience_s)
        try:
            return super().wait(gen, *arguments, **named)
        except Silent:
            self.close()  # an answer that still comes would be taken for another
            raise


def _unless_silent(gen: PQGen[_T], patience_s: float) -> Generator[Any, Any, _T]:
    """The same, until nothing could be read or written for so long.

    psycopg looks several times a second, and tells each time what it saw, or that it was nothing.
    """
    try:
        wanted = next(gen)
        heard = monotonic()
        while True:
            ready = yield wanted
            if ready:
                heard = monotonic()
            elif monotonic() - heard > patience_s:
                raise Silent("the server has said nothing for too long")
            wanted = gen.send(ready)
    except StopIteration as end:
        value: _T = end.value
        return value
