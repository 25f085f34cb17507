"""The events of a workspace as they come, for whoever listens in place of having them delivered.

A listener keeps a place in the audit log, as an endpoint does (`engine.webhooks.outbox`): what it
heard is below it. Places never change, so whoever comes back with the last one misses nothing, over
restarts, kills and on whichever process.
"""

import threading
from collections.abc import Collection
from contextlib import AbstractContextManager

from engine.clock import Clock
from engine.db.database import Database
from engine.errors import InvalidInput
from engine.webhooks.catalogue import EVERY
from engine.webhooks.damage import Said
from engine.webhooks.outbox import Event, events_from, place_at, size
from engine.webhooks.seats import Seats

POLL_MS = 500
"""How often it is looked for what is new, for all listeners together."""
EVENTS_MAX = 100
"""So many events are read at once."""
LISTENERS_MAX = 64
"""So many listen to one process at once."""
LISTENERS_OF_KEY_MAX = 4
LISTENERS_OF_WORKSPACE_MAX = 32
"""So many of those are of one key, which can be rotated, and of all keys of a workspace."""
RETRY_AFTER_S = 10


class Feed:
    """See the module. Any thread may use it."""

    def __init__(self, database: Database, stopwatch: Clock) -> None:
        self._database = database
        self._stopwatch = stopwatch
        self._looking = threading.Lock()
        self._end = 0
        self._looked_ms: int | None = None
        self._said = Said()
        self._seats = Seats("listeners", LISTENERS_MAX, retry_after_s=RETRY_AFTER_S)

    def seat(self, key_id: str, workspace_id: str) -> AbstractContextManager[None]:
        """Be one of those who listen, by a key or a person of a workspace.

        Raises:
            RateLimited, on entering: too many do, of these or of all.
        """
        return self._seats.seat(
            ("key", key_id, LISTENERS_OF_KEY_MAX),
            ("workspace", workspace_id, LISTENERS_OF_WORKSPACE_MAX),
        )

    def begin(self, last: int | None, since_ms: int | None = None) -> int:
        """The place to listen from: behind the `last` that was heard, where what happened at
        `since_ms` is, or the end of the log.

        Raises:
            InvalidInput: the log is not as long as `last` says, so it is not of this log.
        """
        with self._database.reading() as connection:
            if last is None and since_ms is not None:
                return place_at(connection.execute, since_ms)
            end = size(connection.execute)
        if last is None:
            return end
        if last >= end:
            raise InvalidInput("Last-Event-ID", f"the log ends before {last}")
        return last + 1

    def next(
        self, workspace_id: str, place: int, wanted: Collection[str] = (EVERY,)
    ) -> tuple[list[Event], int]:
        """The events of a workspace from a place on, at most `EVENTS_MAX`, and the place that comes
        after them: the same one if there is nothing new.

        If it is another one, there may be more behind it.
        """
        if place >= self._log_end():
            return [], place
        with self._database.reading() as connection:
            return events_from(
                connection.execute, workspace_id, wanted, place, EVENTS_MAX, self._said
            )

    def _log_end(self) -> int:
        """Where the log ended `POLL_MS` ago or later."""
        with self._looking:
            now_ms = self._stopwatch()
            if self._looked_ms is None or now_ms - self._looked_ms >= POLL_MS:
                with self._database.reading() as connection:
                    self._end = size(connection.execute)
                self._looked_ms = now_ms
            return self._end
