"""Delivers events: at least once, each with the same id and bytes, until it was too long in vain.

There is no row for a delivery that succeeds at once. An endpoint has a place in the log: everything
below it was delivered, or failed and has a row of its own with the time of its next attempt. Place
and rows are written after an attempt, so what a crash interrupts is sent again.

One thread hands out what is due and writes down what came of it; each attempt has a thread for
itself, so an endpoint that is slow holds up no other. Only the process that leads delivers.
"""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
import structlog

from engine.background import repeating
from engine.db.database import Read
from engine.errors import Unavailable
from engine.ledger.batch import Batch
from engine.webhooks.attempts import keep_attempt
from engine.webhooks.damage import LeftOut, Said, is_damage
from engine.webhooks.egress import Outcome
from engine.webhooks.endpoint import (
    FAILING,
    GONE,
    Endpoint,
    active_endpoints,
    deliveries,
    disable,
    endpoints,
    of,
    one,
    stored,
)
from engine.webhooks.endpoints import Webhooks
from engine.webhooks.lane import Due, Lane, Moment, moment
from engine.webhooks.schedule import next_attempt_ms, retry_after_ms
from engine.webhooks.signing import headers

FLYING_MAX = 64
FLYING_OF_WORKSPACE_MAX = 32
"""So many deliveries are on their way at once, to all endpoints together and to those of one
workspace, and no more than are free besides: its receivers may be as slow as they like, and others
have theirs."""
WAITING_MAX = 100
"""So many events of one endpoint wait to be sent again; the others behind them stay in the log."""
PROBE_MS = 5 * 60_000
"""So often an endpoint for which so many wait is tried with the next event."""
RECOVERED_FAILURES = 10
"""After so many failures in a row a success means that the receiver is back: nothing waits on."""
UNSTORED_PLACES_MAX = 10_000
"""So far a place moves over events that nobody wants before it is written down."""
SETTLED_MAX = 8
"""So many attempts are written down in one transaction, which payments wait for."""
POLL_S = 0.5
"""How often it is looked for what is due."""

_GONE_STATUS = 410
_PAUSING = (429, 503)
"""Statuses whose `Retry-After` is about the whole endpoint."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Sent:
    """One attempt that was made at `at_ms` and is over since `over_ms`."""

    endpoint: Endpoint
    lane: Lane
    due: Due
    at_ms: int
    over_ms: int
    outcome: Outcome


class Delivery:
    """See the module. `tick` and `start` are for one thread."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._database = webhooks.database
        self._writer = webhooks.writer
        self._vault = webhooks.vault
        self._random_bytes = webhooks.identifiers.random_bytes
        self._clock = webhooks.clock
        self._egress = webhooks.egress
        self._lanes: dict[str, Lane] = {}
        self._sent: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        self._flying: Counter[str] = Counter()
        """Deliveries that are on their way, by workspace."""
        self._turn = 0
        self._left_out = LeftOut()
        self._said = Said()

    def tick(self) -> None:
        """Send everything that is due, and wait until nothing is any more."""
        self._begin()
        while self._flying.total():
            self._settle(self._over(None))
            self._begin()

    def start(
        self, leads: Callable[[], bool], *, stopping: threading.Event
    ) -> list[threading.Thread]:
        """Deliver again and again on a thread of its own, while `leads`."""

        def work() -> None:
            while True:
                # First, so that whatever goes wrong with what is due, places become free again.
                if self._flying.total() and (sent := self._over(POLL_S)):
                    self._settle(sent)
                if leads():
                    self._begin()
                if not self._flying.total() or stopping.is_set():
                    return

        return [repeating("webhooks", work, interval_s=POLL_S, stopping=stopping)]

    def _begin(self) -> None:
        """Send what is due and has room."""
        now_ms = self._clock()

        def damaged(endpoint_id: object, error: Exception) -> None:
            self._left_out.add(endpoint_id, error, now_ms)

        with self._database.reading() as connection:
            read = connection.execute
            active = active_endpoints(read, self._left_out.at(now_ms), damaged)
            self._forget_others(active)
            if not active:
                return
            now = moment(read, now_ms)
            for endpoint in self._in_turn(active):
                try:
                    self._send_due(read, endpoint, now)
                except Exception as error:
                    if not is_damage(error):
                        raise
                    damaged(endpoint.id, error)
        if self._far_ahead():
            self._settle([])

    def _in_turn(self, active: Sequence[Endpoint]) -> list[Endpoint]:
        """Those first of whose workspace the fewest are on their way; of these another each time,
        so that no endpoint is always the last."""
        self._turn += 1
        first = self._turn % len(active)
        turned = [*active[first:], *active[:first]]
        return sorted(turned, key=lambda endpoint: self._flying[endpoint.workspace_id])

    def _send_due(self, read: Read, endpoint: Endpoint, now: Moment) -> None:
        """Send what is due at one endpoint and has room."""
        lane = self._lanes.get(endpoint.id)
        if lane is None:
            place = endpoint.next_place
            lane = self._lanes[endpoint.id] = Lane(place, place, endpoint.events, self._said)
        own = self._flying[endpoint.workspace_id]
        free = FLYING_MAX - self._flying.total()
        # So that it has no more than are left: then there are some, however many share them.
        room = min(FLYING_OF_WORKSPACE_MAX - own, (free - own + 1) // 2)
        read_to = lane.read_to
        try:
            for due in lane.next(read, endpoint, now, room):
                self._send(endpoint, lane, due, now.now_ms)
        except Exception:
            lane.again_from(read_to)
            raise

    def _far_ahead(self) -> dict[str, Lane]:
        """Endpoints whose place moved far over events that they do not want."""
        return {
            name: lane
            for name, lane in self._lanes.items()
            if lane.done_to - lane.stored > UNSTORED_PLACES_MAX
        }

    def _forget_others(self, active: Sequence[Endpoint]) -> None:
        known = {endpoint.id for endpoint in active}
        for endpoint_id in self._lanes.keys() - known:
            del self._lanes[endpoint_id]

    def _send(self, endpoint: Endpoint, lane: Lane, due: Due, now_ms: int) -> None:
        lane.flying[due.event.record_id] = due.place
        self._flying[endpoint.workspace_id] += 1

        def over(outcome: Outcome) -> None:
            self._sent.put(_Sent(endpoint, lane, due, now_ms, self._clock(), outcome))

        def attempt() -> None:
            outcome = Outcome(None, "it could not be sent", 0)
            try:
                outcome = self._attempt(endpoint, due, now_ms)
            except Unavailable as error:
                _log.warning("webhook_not_signed", webhook=endpoint.id, reason=error.message)
                outcome = Outcome(None, "its secret cannot be opened", 0)
            except Exception as error:  # noqa: BLE001 (whatever it was, the attempt failed)
                # Its name alone: a traceback may show local variables, secrets too.
                _log.error("webhook_not_sent", webhook=endpoint.id, error=type(error).__name__)
            finally:
                over(outcome)

        try:
            threading.Thread(target=attempt, name=f"webhook {endpoint.id}", daemon=True).start()
        except RuntimeError:
            over(Outcome(None, "there is no thread for it", 0))

    def _attempt(self, endpoint: Endpoint, due: Due, now_ms: int) -> Outcome:
        body = due.event.body()
        signed = headers(
            due.event.id,
            body,
            endpoint.secrets(self._vault, now_ms),
            at_s=now_ms // 1000,
            attempts=due.attempts,
            first_s=None if due.first_ms is None else due.first_ms // 1000,
        )
        return self._egress.post(endpoint.url, body, signed)

    def _over(self, patience_s: float | None) -> list[_Sent]:
        """Attempts that are over by now, or the first that is in time; None waits for it."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._sent.get(timeout=patience_s))
            while len(found) < SETTLED_MAX:
                found.append(self._sent.get_nowait())
        return found

    def _settle(self, sent: Sequence[_Sent]) -> None:
        """Write down what came of attempts, and how far each endpoint is."""
        for each in sent:
            self._flying[each.endpoint.workspace_id] -= 1
            del each.lane.flying[each.due.event.record_id]
        self._flying += Counter()  # forget workspaces with none
        lanes = {each.endpoint.id: each.lane for each in sent}
        lanes |= self._far_ahead()
        try:
            self._keep(sent, lanes)
        except Exception as error:
            if not is_damage(error):
                _send_again(sent)
                raise
        else:
            return
        failed = None
        for name, lane in lanes.items():  # which of them is it?
            own = [each for each in sent if each.endpoint.id == name]
            try:
                self._keep(own, {name: lane})
            except Exception as error:  # noqa: BLE001 (it is raised, or that endpoint's own)
                _send_again(own)
                if is_damage(error):
                    self._left_out.add(name, error, self._clock())
                else:
                    failed = error
        if failed is not None:
            raise failed

    def _keep(self, sent: Sequence[_Sent], lanes: dict[str, Lane]) -> None:
        """Write down what came of attempts, and these places, in one transaction."""
        owners = self._owners(sent, lanes)

        def command(batch: Batch) -> dict[str, int]:
            for each in sent:
                self._write(batch, each)
            return {
                name: place
                for name, workspace_id in owners.items()
                if (place := _move(batch, workspace_id, name, lanes[name])) is not None
            }

        moved = self._writer.call(command, *sorted(set(owners.values())))
        for name, place in moved.items():
            lanes[name].stored = place
        self._left_out.forget(lanes)

    def _write(self, batch: Batch, sent: _Sent) -> None:
        endpoint = stored(batch.read, sent.endpoint.workspace_id, sent.endpoint.id)
        if endpoint is None:
            return  # it was deleted meanwhile
        ours = (*of(deliveries, endpoint), deliveries.c.record_id == sent.due.event.record_id)
        if sent.outcome.success:
            batch.update(sa.delete(deliveries).where(*ours))
            if endpoint.failures >= RECOVERED_FAILURES:
                later = deliveries.c.next_ms > sent.over_ms
                batch.update(
                    sa.update(deliveries)
                    .where(*of(deliveries, endpoint), later)
                    .values(next_ms=sent.over_ms)
                )
            values = {"failures": 0, "hold_until_ms": 0, "succeeded_ms": sent.over_ms}
            next_ms = None
        else:
            next_ms, hold_until_ms = self._failed(batch, endpoint, sent)
            values = {
                "failures": endpoint.failures + 1,
                "hold_until_ms": max(endpoint.hold_until_ms, hold_until_ms),
            }
        batch.update(sa.update(endpoints).where(*_row_of(endpoint)).values(**values))
        keep_attempt(
            batch,
            replace(endpoint, url=sent.endpoint.url),
            sent.due.event.id,
            sent.due.event.name,
            sent.at_ms,
            sent.outcome,
            attempt=sent.due.attempts,
            next_ms=next_ms,
        )

    def _failed(self, batch: Batch, endpoint: Endpoint, sent: _Sent) -> tuple[int | None, int]:
        """Have it tried again; returns when, and until when nothing new is to be sent."""
        due, now_ms, status = sent.due, sent.over_ms, sent.outcome.status_code
        pause_ms = retry_after_ms(sent.outcome.retry_after, now_ms)
        hold_until_ms = now_ms + pause_ms if status in _PAUSING and pause_ms else 0
        first_ms = sent.at_ms if due.first_ms is None else due.first_ms
        made = due.attempts + 1
        chance = int.from_bytes(self._random_bytes(4)) / 2**32
        next_ms = next_attempt_ms(made, now_ms, chance, pause_ms)
        if status == _GONE_STATUS:
            disable(batch, endpoint, GONE)
            next_ms = None
        elif next_ms is None:
            if (endpoint.succeeded_ms or 0) >= first_ms:  # others arrive: it is this event alone
                gone = deliveries.c.record_id == due.event.record_id
                batch.update(sa.delete(deliveries).where(*of(deliveries, endpoint), gone))
                return None, hold_until_ms
            disable(batch, endpoint, FAILING)
        kept = {
            "attempts": made,
            "first_ms": first_ms,
            # What waits at an endpoint that is disabled is due as soon as it is not any more.
            "next_ms": now_ms if next_ms is None else next_ms,
        }
        ours = *of(deliveries, endpoint), deliveries.c.record_id == due.event.record_id
        if batch.read(sa.select(deliveries).where(*ours)).first() is not None:
            batch.update(sa.update(deliveries).where(*ours).values(**kept))
            return next_ms, hold_until_ms
        waiting = sa.select(sa.func.count()).where(*of(deliveries, endpoint))
        if due.place is not None and batch.read(waiting).scalar_one() >= WAITING_MAX:
            sent.lane.again_from(due.place)
            probe_ms = max(hold_until_ms, now_ms + PROBE_MS)
            return probe_ms, probe_ms
        batch.insert(
            deliveries,
            {
                "workspace_id": endpoint.workspace_id,
                "endpoint_id": endpoint.id,
                "record_id": due.event.record_id,
                **kept,
            },
        )
        return next_ms, hold_until_ms

    def _owners(self, sent: Sequence[_Sent], lanes: dict[str, Lane]) -> dict[str, str]:
        """The workspace of each endpoint that something is written of."""
        query = sa.select(endpoints.c.id, endpoints.c.workspace_id).where(endpoints.c.id.in_(lanes))
        with self._database.reading() as connection:
            owners = {row.id: row.workspace_id for row in connection.execute(query)}
        return owners | {each.endpoint.id: each.endpoint.workspace_id for each in sent}


def _send_again(sent: Sequence[_Sent]) -> None:
    """Nobody knows what came of these attempts. Those that waited still do."""
    for each in sent:
        if each.due.place is not None:
            each.lane.again_from(each.due.place)


def _row_of(endpoint: Endpoint) -> tuple[sa.ColumnElement[bool], ...]:
    return one(endpoint.workspace_id, endpoint.id)


def _move(batch: Batch, workspace_id: str, endpoint_id: str, lane: Lane) -> int | None:
    """Write down how far an endpoint is, unless an operator has moved it; returns the place."""
    place = lane.done_to
    if place <= lane.stored:
        return None
    moved: dict[str, Any] = {"next_place": place}
    as_it_was = endpoints.c.next_place == lane.stored
    batch.update(
        sa.update(endpoints).where(*one(workspace_id, endpoint_id), as_it_was).values(**moved)
    )
    return place
