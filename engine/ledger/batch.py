"""What a command sees: one transaction, one decision time, and the ways to write in it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from engine.audit.canonical import encode_own
from engine.audit.record import Body, Head, encode_record
from engine.db.acts import Act
from engine.db.database import Database, Turn
from engine.db.tables import BATCH_RECORDS_MAX, BudgetEntry, LogBatch, OutboxEvent, Record, table
from engine.errors import TallystickError
from engine.ledger.acts import act_row
from engine.ledger.log import head_after, stored_head
from engine.ledger.scribe import Scribe
from engine.ledger.stream import Stream

Answer = TypeVar("Answer")

_acts = table(Act)
_batches = table(LogBatch)
_records = table(Record)
_outbox = table(OutboxEvent)
_entries = table(BudgetEntry)


class Undeclared(Exception):
    """A command needs streams that the transaction does not hold.

    `written` says whether anything was written before, which memory may know of and has to forget.
    """

    def __init__(self, streams: Collection[str], *, written: bool) -> None:
        super().__init__(streams)
        self.streams = streams
        self.written = written


class Batch:
    """What a command sees: one transaction, one decision time, and the ways to write in it."""

    def __init__(
        self,
        database: Database,
        scribe: Scribe,
        turn: Turn,
        now_ms: int,
        forget: Sequence["Forget"],
    ) -> None:
        self.now_ms = now_ms
        self.identifiers = scribe.identifiers
        self.writes = 0
        self.shared = turn.heads is not None
        """Whether other processes write, too."""
        self._forget = forget
        self._database = database
        self._connection = database.writer
        self._scribe = scribe
        self._turn = turn
        self._heads = scribe.heads if turn.heads is None else turn.heads
        self._moved: dict[str, Head] = {}
        self._leaves: list[bytes] = []
        self._bodies: list[bytes] = []
        self._rows: dict[sa.Table, list[dict[str, Any]]] = {}

    def insert(self, into: sa.Table, row: dict[str, Any]) -> None:
        """Insert at the end of the batch, together with all rows of the same table."""
        self.writes += 1
        self._rows.setdefault(into, []).append(row)

    def update(self, statement: sa.Update | sa.Delete) -> None:
        """Change stored rows, after what was inserted before."""
        self.flush()
        self.writes += 1
        self._connection.execute(statement)

    def read(self, statement: sa.Select[Any]) -> sa.CursorResult[Any]:
        """Read, seeing what this batch has written so far."""
        self.flush()
        return self._connection.execute(statement)

    def hold(self, streams: Iterable[str]) -> None:
        """Say, before anything is written, which streams a command found that it appends to.

        If others could append to them too, all is begun again with them.
        """
        if self._turn.heads is not None:
            missing = [stream for stream in streams if stream not in self._heads]
            if missing:
                raise Undeclared(missing, written=self.writes > 0)

    def sequencing(self) -> None:
        """Be the only one who gives records their place, until the batch ends."""
        self._database.sequencing()

    def head(self, stream: str) -> Head:
        """Where a stream, or a budget, ends now. It stays there until this batch appends to it."""
        head = self._heads.get(stream)
        if head is None:
            if self._turn.heads is not None:
                raise Undeclared((stream,), written=self.writes > 0)
            head = self._heads[stream] = stored_head(self.read, stream)
        return head

    def learn_end(self, stream: str, seq: int, body: bytes) -> None:
        """Somebody has read the last record of a stream, which need not be read for `head` then.

        Raises:
            Unavailable: it is none any more.
        """
        if self._turn.heads is None and stream not in self._heads:
            self._heads[stream] = head_after(stream, seq, body)

    def forget_end(self, stream: str) -> None:
        """Let a stream's end be read again when it is next needed: nobody can remember all."""
        if self._turn.heads is None:
            self._heads.pop(stream, None)

    def forget(self, workspace_id: str, session_id: str | None = None) -> None:
        """Have what memory holds of a workspace's sessions, or of this one, read again when it is
        next needed."""
        for forget in self._forget:
            forget(self, workspace_id, session_id)

    def record(self, stream: Stream, kind: str, body: Body) -> int:
        """Append to the audit log and return the record's id."""
        head = self.head(stream.id)
        raw, leaf = encode_record(
            log=self._scribe.origin,
            workspace=stream.workspace_id,
            stream=stream.id,
            head=head,
            time_ms=self.now_ms,
            kind=kind,
            body=body,
            salt=self._scribe.salt(),
        )
        record_id = self._turn.batch + len(self._leaves)
        self._heads[stream.id] = self._moved[stream.id] = Head(head.seq + 1, leaf)
        self.insert(
            _records,
            {
                "id": record_id,
                **stream.columns(),
                "stream": stream.id,
                "seq": head.seq,
                "body": raw,
            },
        )
        act = act_row(record_id, stream.workspace_id, self.now_ms, kind, body)
        if act is not None:
            self.insert(_acts, act)
        self._leaves.append(leaf)
        self._bodies.append(raw)
        assert len(self._leaves) <= BATCH_RECORDS_MAX
        return record_id

    def enter_anew(self, budget: str) -> None:
        """Begin a budget without entries again."""
        self._heads[budget] = self._moved[budget] = Head(0, b"")

    def enter(self, budget: str, row: dict[str, Any]) -> int:
        """Append an entry to a budget, and return its number there."""
        seq = self.head(budget).seq
        self._heads[budget] = self._moved[budget] = Head(seq + 1, b"")
        self.insert(_entries, {"budget": budget, "seq": seq, **row})
        return seq

    def event(self, stream: Stream, name: str, payload: dict[str, Any]) -> None:
        """Put an event into the outbox beside the record of the stream that was just written."""
        self.insert(
            _outbox,
            {
                "id": self._turn.batch + len(self._leaves) - 1,
                **stream.columns(),
                "stream": stream.id,
                "seq": self.head(stream.id).seq - 1,
                "event": name,
                "payload_json": encode_own(payload).decode(),
                "created_ms": self.now_ms,
            },
        )

    def answer(self, command: "Command[Answer]") -> Answer | TallystickError:
        """What a command answers, or how it refuses, which it may before it writes anything.

        Raises:
            RuntimeError: it refused after that, and half of something must not be committed.
        """
        writes = self.writes
        try:
            return command(self)
        except TallystickError as refusal:
            if self.writes != writes:
                raise RuntimeError("a command refused after it had written") from refusal
            return refusal

    def flush(self) -> None:
        """Send the inserts that wait to the database."""
        rows, self._rows = self._rows, {}
        for into, values in rows.items():
            self._database.insert_many(into, values)

    def close(self) -> None:
        """Write what is left to write; what commits comes after it."""
        if self._leaves:
            batch, leaf_hashes = self._turn.batch, b"".join(self._leaves)
            self.insert(
                _batches,
                {
                    "id": batch,
                    "first_leaf": None,
                    "time_ms": self.now_ms,
                    "leaf_hashes": leaf_hashes,
                    "seal": self._scribe.seal(batch, leaf_hashes, self._bodies),
                },
            )
        rows, self._rows = self._rows, {}
        self._database.finish(rows, self._moved, self.now_ms)


Command = Callable[[Batch], Answer]
Forget = Callable[[Batch, str, str | None], None]
"""Forgets what memory holds of a workspace, or of one session of it."""
