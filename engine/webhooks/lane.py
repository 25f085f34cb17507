"""One endpoint's way through the log: what is next to be sent there, and what is on its way."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa

from engine.db.database import Read
from engine.webhooks.endpoint import Endpoint, deliveries, of
from engine.webhooks.outbox import Event, event_of, events_from, size

WIDTH = 8
"""So many deliveries are on their way to one endpoint at once; one alone while it fails."""


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
    waited is due."""

    now_ms: int
    end: int
    due: frozenset[str]


def moment(read: Read, now_ms: int) -> Moment:
    """Read it, so that an endpoint for which there is nothing costs nothing more."""
    due = sa.select(deliveries.c.endpoint_id).where(deliveries.c.next_ms <= now_ms).distinct()
    return Moment(now_ms, size(read), frozenset(read(due).scalars()))


@dataclass(slots=True)
class Lane:
    """Only the thread that delivers uses it.

    `stored` is the place that the row has: everything below it was delivered or waits. `read_to` is
    how far this process has read. In between is what is on its way (`flying`, by record), and what
    is not `wanted`.
    """

    stored: int
    read_to: int
    wanted: tuple[str, ...]
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
        if endpoint.id in now.due:
            for again in self._again(read, endpoint, now.now_ms, room):
                room -= 1
                yield again
        if room <= 0 or endpoint.hold_until_ms > now.now_ms or self.read_to >= now.end:
            return
        events, self.read_to = events_from(
            read, endpoint.workspace_id, self.wanted, self.read_to, room
        )
        for event in events:
            if event.record_id not in self.flying:
                yield Due(event, event.place)

    def _again(self, read: Read, endpoint: Endpoint, now_ms: int, room: int) -> Iterator[Due]:
        query = (
            sa.select(deliveries)
            .where(*of(deliveries, endpoint), deliveries.c.next_ms <= now_ms)
            .order_by(deliveries.c.next_ms, deliveries.c.record_id)
            .limit(room + len(self.flying))
        )
        for row in read(query).all():
            if row.record_id in self.flying:
                continue
            event = event_of(read, row.record_id, self.wanted)
            if event is not None and room > 0:
                room -= 1
                yield Due(event, None, row.attempts, row.first_ms)

    def again_from(self, place: int) -> None:
        """What is at this place could neither be delivered nor kept: it is read once more."""
        self.read_to = min(self.read_to, place)
