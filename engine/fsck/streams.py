"""The records, stream by stream: each is where it says it is, follows the one before and has the
hash that its batch holds. What they tell is for `sessions` and `workspaces` to follow.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from engine.audit.canonical import CanonicalError
from engine.audit.merkle import HASH_BYTES
from engine.audit.record import Record, decode_record
from engine.db.acts import Act
from engine.db.tables import (
    BATCH_RECORDS_MAX,
    Decision,
    LogBatch,
    OutboxEvent,
    StreamHead,
    table,
)
from engine.db.tables import Record as RecordRow
from engine.fsck.finding import UNSAID, Findings, Row, part, stored
from engine.fsck.installation import Installation
from engine.ledger.acts import act_row
from engine.ledger.stream import BUDGET_PREFIX

_acts = table(Act)
_batches = table(LogBatch)
_decisions = table(Decision)
_heads = table(StreamHead)
_outbox = table(OutboxEvent)
_records = table(RecordRow)
_position = _records.c.id % BATCH_RECORDS_MAX
_first_byte = 1 + HASH_BYTES * sa.cast(_position, sa.Integer)

DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    msgspec.DecodeError,
)
"""What following a record raises that is not of its form."""

_entries = (
    sa.select(
        *stored(_records),
        _batches.c.first_leaf.label("first_leaf"),
        sa.type_coerce(_batches.c.time_ms, sa.types.NullType()).label("batch_ms"),
        sa.type_coerce(
            sa.func.substr(_batches.c.leaf_hashes, _first_byte, HASH_BYTES),
            sa.types.NullType(),
        ).label("leaf"),
        *stored(_decisions, "decision_"),
        *stored(_outbox, "event_"),
        *stored(_acts, "act_"),
    )
    .outerjoin(_batches, _batches.c.id == _records.c.id - _position)
    .outerjoin(_decisions, _decisions.c.id == _records.c.id)
    .outerjoin(_outbox, _outbox.c.id == _records.c.id)
    .outerjoin(_acts, _acts.c.id == _records.c.id)
    .where(_records.c.stream == sa.bindparam("wanted"))
    .order_by(_records.c.seq)
    .execution_options(yield_per=500)
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, its id, and the rows that stand beside it under the same id."""

    id: int
    record: Record
    decision: dict[str, Any] | None
    event: dict[str, Any] | None


class Fold(Protocol):
    """Follows the records of one stream, and in the end compares the rows that they make."""

    session_type: str | None
    label: str | None

    def feed(self, entry: Entry) -> None:
        """Follow the next one. May raise any of `DAMAGE`."""

    def finish(self) -> None:
        """There are no more. May raise any of `DAMAGE`."""


def check_streams(
    connection: sa.Connection,
    findings: Findings,
    installation: Installation,
    open_fold: Callable[[Entry], Fold | None],
) -> None:
    """Read every stream from its beginning; `open_fold` says what follows it."""
    alone = connection.dialect.name == "sqlite"
    names = sa.select(_records.c.stream).distinct().order_by(_records.c.stream)
    for name in connection.execute(names).scalars().all():
        head = _check_stream(connection, findings, installation, name, open_fold)
        if not alone:
            stored_head = sa.select(*stored(_heads)).where(_heads.c.id == name)
            row = connection.execute(stored_head).mappings().first()
            findings.compare("stream_heads", name, head, row, by="its last record")
    orphans = sa.select(_heads.c.id)
    if not alone:
        followed = sa.exists().where(_records.c.stream == _heads.c.id)
        orphans = orphans.where(~followed, ~_heads.c.id.startswith(BUDGET_PREFIX))
    for orphan in connection.execute(orphans).scalars().all():
        findings.unexpected("stream_heads", orphan, "there is no such stream")
    for of, rows in (("decisions", _decisions), ("outbox", _outbox), ("acts", _acts)):
        beside = sa.exists().where(_records.c.id == rows.c.id)
        for orphan in connection.execute(sa.select(rows.c.id).where(~beside)).scalars().all():
            findings.unexpected(of, orphan, "there is no record of this id")


def _check_stream(
    connection: sa.Connection,
    findings: Findings,
    installation: Installation,
    name: str,
    open_fold: Callable[[Entry], Fold | None],
) -> dict[str, Any]:
    """Returns the row of `stream_heads` that the records make."""
    fold: Fold | None = None
    follower = Follower(findings, installation, name)
    followed = True
    for entry in follower.entries(connection):
        if entry is None:  # what is after a record that cannot be read cannot be followed
            fold, followed = None, False
            continue
        try:
            if fold is None and followed:
                fold = open_fold(entry)
                followed = fold is not None
            if fold is not None:
                follower.check_owner(entry, fold)
                fold.feed(entry)
        except DAMAGE as error:
            findings.add(
                "records",
                entry.id,
                "body",
                says=f"record {entry.record.seq} of {name} ({entry.record.kind}) cannot be "
                f"followed, so nothing after it is: {error!r}",
            )
            fold, followed = None, False
    try:
        if fold is not None:
            fold.finish()
    except DAMAGE as error:
        says = f"what the records of {name} lead to cannot be told: {error!r}"
        findings.add("records", f"{name}/0", "body", says=says)
    return follower.head()


class Follower:
    """Checks what every record has, whatever it tells."""

    def __init__(self, findings: Findings, installation: Installation, name: str) -> None:
        self._findings = findings
        self._installation = installation
        self._name = name
        self._seq = 0
        self._prev: bytes | None = None
        self._time_ms = 0
        self._place: int | None = -1

    def head(self) -> dict[str, Any]:
        """Where the stream ends."""
        return {
            "id": self._name,
            "seq": self._seq,
            "prev": self._prev,
            "time_ms": self._time_ms,
        }

    def entries(self, connection: sa.Connection) -> Iterator[Entry | None]:
        """The records in their order; None for one that cannot be read."""
        rows = connection.execute(_entries, {"wanted": self._name}).mappings()
        for row in rows:
            try:
                record = decode_record(row["body"])
            except (CanonicalError, TypeError) as error:
                self._note(row, "body", f"it is no record: {error}", found=row["body"])
                self._seq += 1
                yield None
                continue
            self._check(row, record)
            yield Entry(
                row["id"],
                record,
                part(row, "decision_", _decisions),
                part(row, "event_", _outbox),
            )

    def check_owner(self, entry: Entry, fold: Fold) -> None:
        """The columns that every row of a session has from its first record."""
        wanted = {"session_type": fold.session_type, "label": fold.label}
        self._findings.compare(
            "records", entry.id, wanted, self._row, by=f"record 0 of {self._name}"
        )

    def _check(self, row: Row, record: Record) -> None:
        self._row = row
        told = {
            "id": UNSAID,
            "workspace_id": record.workspace,
            "stream": record.stream,
            "seq": record.seq,
        }
        self._findings.compare("records", row["id"], told, row, by="its body")
        self._check_hash(row, record)
        self._check_act(row, record)
        if record.seq != self._seq:
            self._findings.missing(
                "records", f"{self._name}/{self._seq}", f"record {record.seq} comes in its place"
            )
        elif record.prev != self._prev:
            self._note(row, "body", "it follows another record than the one before it")
        if record.time_ms < self._time_ms:
            self._note(row, "body", "it is older than the one before it")
        if record.log != self._installation.origin:
            self._findings.add(
                "meta",
                "origin",
                "value",
                found=self._installation.origin,
                expected=record.log,
                says=f"the records of {self._name} are of another log",
            )
        self._seq, self._prev, self._time_ms = record.seq + 1, record.hash, record.time_ms

    def _check_act(self, row: Row, record: Record) -> None:
        told = record.workspace, record.time_ms, record.kind, record.body
        expected, found = act_row(row["id"], *told), part(row, "act_", _acts)
        if expected is not None:
            self._findings.compare("acts", row["id"], expected, found, by="its record")
        elif found is not None:
            self._findings.unexpected("acts", row["id"], f"{record.kind} is no act")

    def _check_hash(self, row: Row, record: Record) -> None:
        batch = row["id"] - row["id"] % BATCH_RECORDS_MAX
        if row["batch_ms"] is None:
            return  # that the batch is missing was found before
        if row["leaf"] != record.hash:
            says = f"record {row['id']} does not have the hash that its batch holds"
            self._note(row, "body", says, found=record.hash, expected=row["leaf"])
            self._findings.add(
                "log_batches",
                batch,
                "leaf_hashes",
                found=row["leaf"],
                expected=record.hash,
                says=says,
            )
        when = {"time_ms": record.time_ms}
        self._findings.compare(
            "log_batches", batch, when, {"time_ms": row["batch_ms"]}, by=f"record {row['id']}"
        )
        first = row["first_leaf"]
        place = first + row["id"] - batch if isinstance(first, int) else None
        if place is not None and (self._place is None or place <= self._place):
            self._findings.add(
                "log_batches",
                batch,
                "first_leaf",
                found=first,
                expected="behind the record before it",
                says=f"the records of {self._name} do not stand in their order",
            )
        self._place = place

    def _note(self, row: Row, column: str, says: str, **values: Any) -> None:
        self._findings.add("records", row["id"], column, says=says, **values)
