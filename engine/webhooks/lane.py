"""One endpoint's way through the log: what is next to be sent there, and what is on its way."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog

from engine.db.database import Read
from engine.webhooks.damage import Said, is_damage
from engine.webhooks.endpoint import Endpoint, deliveries, of
from engine.webhooks.outbox import Event, event_of, events_from, size

WIDTH = 8
"""So many deliveries are on their way to one endpoint at once; one alone while it fails."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """An event that is to be sent now. Its `place` is None where it is sent again."""

    event: Event
    place: int | None
    attempts: int = 0
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What holds for all endpoints at `now_ms`: the end of the log, and for whom something that
    waited is due, None if that cannot be read."""

    now_ms: int
    end: int
    due: frozenset[str] | None


def moment(read: Read, now_ms: int) -> Moment:
    """Read it, so that an endpoint for which there is nothing costs nothing more."""
    due = sa.select(deliveries.c.endpoint_id).where(deliveries.c.next_ms <= now_ms).distinct()
    end = size(read)
    try:
        return Moment(now_ms, end, frozenset(read(due).scalars()))
    except Exception as error:
        if not is_damage(error):
            raise
        return Moment(now_ms, end, None)  # then each endpoint is asked for what waits there


@dataclass(slots=True)
class Lane:
    """Only the thread that delivers uses it.

    `stored` is the place that the row has: everything below it was delivered or waits. `read_to` is
    how far this process has read. In between is what is on its way (`flying`, by record), and what
    is not `wanted`, or damaged: `said` knows of what that was logged.
    """

    stored: int
    read_to: int
    wanted: tuple[str, ...]
    said: Said
    flying: dict[int, int | None] = field(default_factory=dict)

    @property
    def done_to(self) -> int:
        """The place that the row may have now."""
        places = [place for place in self.flying.values() if place is not None]
        return min([*places, self.read_to])

    def next(self, read: Read, endpoint: Endpoint, now: Moment, room: int) -> Iterator[Due]:
        """What is to be sent now, at most `room`: what waited, then what is new."""
        if (endpoint.next_place, endpoint.events) != (self.stored, self.wanted):
            # An operator has changed it: all that is not stored is looked at again.
            self.stored = self.read_to = endpoint.next_place
            self.wanted = endpoint.events
        width = 1 if endpoint.failures else WIDTH
        room = min(room, width - len(self.flying))
        if room <= 0:
            return
        if now.due is None or endpoint.id in now.due:
            for again in self._again(read, endpoint, now.now_ms, room):
                room -= 1
                yield again
        if room <= 0 or endpoint.hold_until_ms > now.now_ms or self.read_to >= now.end:
            return
        events, self.read_to = events_from(
            read, endpoint.workspace_id, self.wanted, self.read_to, room, self.said
        )
        for event in events:
            if event.record_id not in self.flying:
                yield Due(event, event.place)

    def _again(self, read: Read, endpoint: Endpoint, now_ms: int, room: int) -> Iterator[Due]:
        query = (
            sa.select(deliveries)
            .where(*of(deliveries, endpoint), deliveries.c.next_ms <= now_ms)
            .order_by(deliveries.c.next_ms, deliveries.c.record_id)
        )
        # All of them, which are few: those that cannot be sent would fill what is limited.
        for row in read(query).all():
            if room <= 0:
                return
            if row.record_id in self.flying:
                continue
            if type(row.attempts) is not int or type(row.first_ms) is not int:
                if self.said.once((endpoint.id, row.record_id)):
                    told = {"webhook": endpoint.id, "record": row.record_id}
                    _log.error("webhook_delivery_damaged", **told)
                continue
            event = event_of(read, endpoint.workspace_id, row.record_id, self.wanted, self.said)
            if event is not None:
                room -= 1
                yield Due(event, None, row.attempts, row.first_ms)

    def again_from(self, place: int) -> None:
        """What is at this place could neither be delivered nor kept: it is read once more."""
        self.read_to = min(self.read_to, place)
