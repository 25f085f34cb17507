"""Where it is written down what payments have bought: one small text for each payment.

What such a text says is decided in `engine/selling`. Here it is only kept, and never changed by two
at once: whoever replaces one names what was there before.
"""

import secrets
from typing import Protocol

from engine.clock import Clock
from engine.storage.sql_database import Rows, SqlDatabase, Statements, Values

_READ = "SELECT :now, (SELECT body FROM grants WHERE id = :id)"
_INSERT = """
    INSERT INTO grants (id, body) VALUES (:id, :new) ON CONFLICT (id) DO NOTHING RETURNING id
"""
_UPDATE = "UPDATE grants SET body = :new WHERE id = :id AND body = :old RETURNING id"
_DELETE = "DELETE FROM grants WHERE id = :id AND body = :old RETURNING id"


class Grants(Protocol):
    """Texts by the ids of payments. Every method may raise `Unavailable`.

    `opening` names this opening of them. If they are not `shared`, whatever names another opening
    is of a process that is gone.
    """

    shared: bool
    opening: str

    async def read(self, payment: str) -> tuple[bytes | None, int]:
        """What is kept, and the time in milliseconds by the clock of who keeps it."""

    async def replace(self, payment: str, old: bytes | None, new: bytes | None) -> bool:
        """Keep `new` in place of `old`, durably; False if something else is there.

        None is for nothing. `old` and `new` are not both None.
        """


class MemoryGrants:
    """They end with the process: what was bought before is then refused by the token alone."""

    shared = False

    def __init__(self, clock: Clock) -> None:
        self.opening = secrets.token_hex(8)
        self._clock = clock
        self._kept: dict[str, bytes] = {}

    async def read(self, payment: str) -> tuple[bytes | None, int]:
        """See `Grants`."""
        return self._kept.get(payment), self._clock()

    async def replace(self, payment: str, old: bytes | None, new: bytes | None) -> bool:
        """See `Grants`."""
        if self._kept.get(payment) != old:
            return False
        if new is None:
            del self._kept[payment]
        else:
            self._kept[payment] = new
        return True


class SqlGrants:
    """In the tables of a `SqlStore`."""

    def __init__(self, database: SqlDatabase, run: Statements) -> None:
        self.opening = secrets.token_hex(8)
        self.shared = database.shared
        self._database = database
        self._run = run

    async def read(self, payment: str) -> tuple[bytes | None, int]:
        """See `Grants`."""
        asked: Values = {"id": payment}
        [(now, body)] = await self._database.read(lambda c: self._run(c, _READ, asked))
        return None if body is None else bytes(body), int(now)

    async def replace(self, payment: str, old: bytes | None, new: bytes | None) -> bool:
        """See `Grants`."""
        statement = _INSERT if old is None else _DELETE if new is None else _UPDATE
        asked: Values = {"id": payment, "old": old, "new": new}
        rows: Rows = await self._database.write(lambda c: self._run(c, statement, asked))
        return bool(rows)
