"""What is over is ended, of many at once; one that cannot be ended keeps no other waiting."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from engine.db.database import of_its_rows
from engine.db.tables import Decision, table
from engine.errors import TallystickError
from engine.ledger.batch import Batch
from engine.ledger.writer import Writer

SWEPT_MAX = 500
"""So many are ended in one transaction."""
AGAIN_MS = 60_000
"""What could not be ended is left out for so long, and then tried again."""

_decisions = table(Decision)
_log = structlog.get_logger(__name__)


def sessions_of_holds_over(batch: Batch, but: Collection[str]) -> Sequence[str]:
    """The session of each hold that is over, the first of them first; but not of these."""
    query = (
        sa.select(_decisions.c.session_id)
        .where(_decisions.c.state == "held", _decisions.c.expires_ms <= batch.now_ms)
        .where(_decisions.c.session_id.not_in(but))
        .order_by(_decisions.c.expires_ms)
        .limit(SWEPT_MAX)
    )
    return batch.read(query).scalars().all()


class Sweep:
    """Ends things of one kind. Whoever leads has it."""

    def __init__(
        self,
        writer: Writer,
        due: Callable[[Batch, Collection[str]], Mapping[str, Any]],
        end: Callable[[Batch, str, Any], int],
    ) -> None:
        """Both run on the writer's thread.

        `due` finds at most `SWEPT_MAX` that are over, but not those that it is given, and holds
        the streams that their end is written to. `end` ends what was found under a name, and
        returns how many that were.
        """
        self._writer = writer
        self._due = due
        self._end = end
        self._left: set[str] = set()
        self._left_ms = 0

    def run(self) -> int:
        """End what is over; returns how many were, `SWEPT_MAX` or more if there may be others.

        Raises:
            Unavailable: the writer takes no commands, or the database failed.
        """
        try:
            return self._writer.call(self._all)
        except TallystickError as error:
            _raise_unless_damage(error)
        ended = 0
        for name, found in self._writer.call(self._find).items():
            try:
                ended += self._writer.call(lambda batch: self._end(batch, name, found))  # noqa: B023
            except TallystickError as error:
                _raise_unless_damage(error)
                _log.error("not_ended", what=name, reason=error.message)
                self._left.add(name)
        return ended

    def _find(self, batch: Batch) -> Mapping[str, Any]:
        if batch.now_ms >= self._left_ms + AGAIN_MS:
            self._left.clear()
            self._left_ms = batch.now_ms
        return self._due(batch, self._left)

    def _all(self, batch: Batch) -> int:
        return sum(self._end(batch, name, found) for name, found in self._find(batch).items())


def _raise_unless_damage(error: TallystickError) -> None:
    """What the database could not do would fail for the others as well."""
    cause = error.__cause__
    if isinstance(cause, sa.exc.DBAPIError) and not of_its_rows(cause):
        raise error
