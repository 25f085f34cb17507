"""The outbox, read in the order of the log.

An event is committed with the record that it stands beside, and its place is that record's leaf in
the log's tree: the sequencer gives places out in the order in which it finds what is committed, and
never one below another that it gave. So "everything from this place on" misses nothing, also where
many processes commit at once and a transaction that began early ends late.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.merkle import HASH_BYTES
from engine.db.database import Read
from engine.db.tables import BATCH_RECORDS_MAX, LogBatch, OutboxEvent, table
from engine.webhooks.catalogue import EVERY, own_names, told_as
from engine.webhooks.damage import Said, is_damage

API_VERSION = "2025-01"
SCANNED_MAX = 50_000
"""So many places of the log are looked at at once."""

_log = structlog.get_logger(__name__)
_batches = table(LogBatch)
_outbox = table(OutboxEvent)

_place = (_batches.c.first_leaf + _outbox.c.id - _batches.c.id).label("place")
_placed = sa.select(_outbox, _place).join_from(
    _batches,
    _outbox,
    _outbox.c.id.between(_batches.c.id, _batches.c.id + BATCH_RECORDS_MAX - 1),
)

# As expressions: of the columns SQLite would make an index of the whole outbox at every look.
_owner, _name = _outbox.c.workspace_id + "", _outbox.c.event + ""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the outbox. `sequence` is the number of its record in the stream; `place` that
    in the log, None where nobody asked."""

    record_id: int
    workspace_id: str
    stream: str
    sequence: int
    name: str
    data: Any
    created_ms: int
    place: int | None = None

    @property
    def id(self) -> str:
        """The same in every delivery, to every endpoint."""
        return f"evt_{self.stream}_{self.sequence}"

    def body(self) -> bytes:
        """What is sent: the same bytes at each attempt."""
        return event_body(
            self.id, self.name, self.created_ms, self.workspace_id, self.data, self.sequence
        )


def event_body(
    event_id: str, name: str, at_ms: int, workspace_id: str, data: Any, sequence: int
) -> bytes:
    """The JSON of an event, in UTF-8. Clients of the agent-session API require `merchant_id`."""
    told = {
        "id": event_id,
        "event": name,
        "timestamp": _time_text(at_ms),
        "api_version": API_VERSION,
        "merchant_id": workspace_id,
        "sequence": sequence,
        "data": data,
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def size(read: Read) -> int:
    """How many records have their place."""
    last = read(
        sa.select(_batches.c.first_leaf, sa.func.length(_batches.c.leaf_hashes).label("bytes"))
        .where(_batches.c.first_leaf.is_not(None))
        .order_by(_batches.c.first_leaf.desc())
        .limit(1)
    ).first()
    return 0 if last is None else int(last.first_leaf + last.bytes // HASH_BYTES)


def events_from(
    read: Read, workspace_id: str, wanted: Collection[str], place: int, limit: int, said: Said
) -> tuple[list[Event], int]:
    """The next events of a workspace from a place on, and the place that comes after them.

    If there are fewer than `limit`, that place is the end of what was looked at, or some are
    damaged and left out: `said` knows of which that was logged.
    """
    began = sa.select(sa.func.max(_batches.c.first_leaf)).where(_batches.c.first_leaf <= place)
    first = read(began).scalar_one() or 0
    end = min(size(read), place + SCANNED_MAX)
    query = _placed.where(
        _batches.c.first_leaf >= first,
        _batches.c.first_leaf < end,
        _place >= place,
        _place < end,
        _owner == workspace_id,
    )
    if EVERY not in wanted:
        query = query.where(_name.in_(own_names(wanted)))
    query = query.order_by(_batches.c.first_leaf, _outbox.c.id).limit(limit)
    try:
        rows = read(query).all()
        events = [_event(row, wanted, said, row.place) for row in rows]
    except sa.exc.DBAPIError as error:
        if not is_damage(error):
            raise
        rows = read(query.with_only_columns(_outbox.c.id, _place)).all()
        events = [event_of(read, workspace_id, row.id, wanted, said, row.place) for row in rows]
    after = rows[-1].place + 1 if len(rows) == limit else max(place, end)
    return [event for event in events if event is not None], after


def event_of(
    read: Read,
    workspace_id: str,
    record_id: int,
    wanted: Collection[str],
    said: Said,
    place: int | None = None,
) -> Event | None:
    """The event of a workspace beside a record, as it is `wanted`; None if there is none any more,
    or if it is damaged."""
    query = sa.select(_outbox).where(_outbox.c.id == record_id, _owner == workspace_id)
    try:
        row = read(query).first()
    except sa.exc.DBAPIError as error:
        if not is_damage(error):
            raise
        _say(said, record_id, workspace_id, type(error).__name__)
        return None
    return None if row is None else _event(row, wanted, said, place)


def place_at(read: Read, time_ms: int) -> int:
    """The place of the first batch of records that is of this time or later; else the end."""
    first = read(
        sa.select(sa.func.min(_batches.c.first_leaf)).where(_batches.c.time_ms >= time_ms)
    ).scalar_one()
    return size(read) if first is None else int(first)


def _event(row: Any, wanted: Collection[str], said: Said, place: int | None) -> Event | None:
    kinds = {"stream": str, "seq": int, "event": str, "created_ms": int}
    strange = [name for name, kind in kinds.items() if type(getattr(row, name)) is not kind]
    try:
        event = Event(
            record_id=row.id,
            workspace_id=row.workspace_id,
            stream=row.stream,
            sequence=row.seq,
            name=told_as(row.event, wanted),
            data=json.loads(row.payload_json, parse_constant=_no_number),
            created_ms=row.created_ms,
            place=place,
        )
        header = event.id.isascii() and event.id.isprintable()
        if strange or not header or event.sequence < 0 or not isinstance(event.data, dict):
            _say(said, row.id, row.workspace_id, ", ".join(strange) or "it is no event")
            return None
        event.body()  # nothing else shows whether it can be told
    except (ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        _say(said, row.id, row.workspace_id, type(error).__name__)  # its text may tell the event
        return None
    return event


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _say(said: Said, record_id: int, workspace_id: str, reason: str) -> None:
    if said.once(record_id):
        _log.error("event_damaged", record=record_id, workspace=workspace_id, reason=reason)


def _time_text(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
