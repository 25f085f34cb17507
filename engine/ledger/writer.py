"""The one writer: whatever commands wait are run together and committed in one durable transaction.

A command is answered after its commit, never before. It may refuse with a `TallystickError` only
while it has not written anything; any other failure gives up the whole batch: the transaction is
rolled back, and memory is dropped and read again from the database. If the database failed, every
caller in the batch hears `Unavailable` and finds out with its idempotency key what happened; if a
command did, the others are run again, each by itself, and its caller alone hears that.
After a failure that may have lost writes (an I/O error, a failed fsync) nothing is acknowledged any
more until the process is started again.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
import structlog

from engine.audit.canonical import encode_own
from engine.audit.record import Body, Head, encode_record
from engine.clock import Clock
from engine.db.acts import Act
from engine.db.database import Database, Turn, of_its_rows
from engine.db.tables import BATCH_RECORDS_MAX, BudgetEntry, LogBatch, OutboxEvent, Record, table
from engine.errors import TallystickError, Unavailable
from engine.ledger.acts import act_row
from engine.ledger.log import head_after, stored_head
from engine.ledger.scribe import Scribe
from engine.ledger.stream import Stream

Answer = TypeVar("Answer")

BATCH_COMMANDS_MAX = 512
CLOCK_STEP_MS = 1_000
"""A clock that is further behind than this was set back, which somebody should know."""
CONTENTIONS_MAX = 5
"""So often a batch is begun again because other processes were in its way."""

_log = structlog.get_logger(__name__)
_acts = table(Act)
_batches = table(LogBatch)
_records = table(Record)
_outbox = table(OutboxEvent)
_entries = table(BudgetEntry)


class Undeclared(Exception):
    """A command needs streams that the transaction does not hold."""

    def __init__(self, streams: Collection[str]) -> None:
        super().__init__(streams)
        self.streams = streams


class Batch:
    """What a command sees: one transaction, one decision time, and the ways to write in it."""

    def __init__(
        self,
        database: Database,
        scribe: Scribe,
        turn: Turn,
        now_ms: int,
        forget: Callable[[], None],
    ) -> None:
        self.now_ms = now_ms
        self.forget = forget
        """Have whatever memory holds of sessions read again when it is next needed."""
        self.identifiers = scribe.identifiers
        self.writes = 0
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
                raise Undeclared(missing)

    def sequencing(self) -> None:
        """Be the only one who gives records their place, until the batch ends."""
        self._database.sequencing()

    def head(self, stream: str) -> Head:
        """Where a stream, or a budget, ends now. It stays there until this batch appends to it."""
        head = self._heads.get(stream)
        if head is None:
            if self._turn.heads is not None:
                raise Undeclared((stream,))
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


class Order(NamedTuple):
    """A command, the streams it appends to, and who waits for its answer."""

    command: Command[Any]
    streams: Sequence[str]
    future: Future[Any]


class Writer:
    """Runs commands on a thread of its own. `start` first, `stop` last."""

    def __init__(self, database: Database, scribe: Scribe, clock: Clock | None) -> None:
        """With a `clock` that is the time, whatever the database's clock says."""
        self._database = database
        self._scribe = scribe
        self._clock = clock
        self._queue: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._forget: list[Callable[[], None]] = [scribe.heads.clear]
        self._learn: list[Callable[[Turn, int], None]] = []
        self._prepare: list[Callable[[Batch, Collection[str]], None]] = []
        self._accepting = threading.Lock()
        self._process = os.getpid()
        self._stopped = False
        self._now_ms = 0
        self._clock_behind = False
        self.fault: str | None = None

    def on_abandoned_batch(self, forget: Callable[[], None]) -> None:
        """Call `forget` when memory may differ from the database and must be read again."""
        self._forget.append(forget)

    def on_turn(self, learn: Callable[[Turn, int], None]) -> None:
        """Call `learn` with what each transaction begins with and its decision time."""
        self._learn.append(learn)

    def on_batch(self, prepare: Callable[[Batch, Collection[str]], None]) -> None:
        """Call `prepare` before the commands of each batch, with the streams that they name."""
        self._prepare.append(prepare)

    def start(self) -> None:
        """Begin to take commands."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then stop."""
        with self._accepting:
            if self._stopped:
                return
            self._stopped = True
            self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, command: Command[Answer], *streams: str) -> "Future[Answer]":
        """Queue a command; the future is done once its transaction is durable.

        `streams` are those that it reads the end of or appends to. One that needs another is begun
        again, with everything that was to be committed with it.
        """
        future: Future[Answer] = Future()
        if os.getpid() != self._process:
            # The thread is not here, and the connection is somebody else's.
            future.set_exception(Unavailable("the engine was opened before this process was made"))
            return future
        with self._accepting:
            if self._stopped:
                future.set_exception(Unavailable("the engine is stopping"))
            else:
                self._queue.put(Order(command, streams, future))
        return future

    def call(self, command: Command[Answer], *streams: str) -> Answer:
        """Run a command and wait for its commit."""
        return self.submit(command, *streams).result()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            orders = [first]
            last = False
            with contextlib.suppress(queue.Empty):
                while len(orders) < BATCH_COMMANDS_MAX and not last:
                    item = self._queue.get_nowait()
                    if item is None:
                        last = True
                    else:
                        orders.append(item)
            self._commit([o for o in orders if o.future.set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, orders: Sequence[Order]) -> None:
        if self.fault is not None:
            for order in orders:
                order.future.set_exception(Unavailable(self.fault))
            return
        try:
            answers = self._decide(orders)
        except Exception as error:  # noqa: BLE001 (whatever it was, nobody may be told it happened)
            self._abandon(error)
            of_all = isinstance(error, sa.exc.DBAPIError) and not of_its_rows(error)
            if len(orders) > 1 and not of_all:
                for order in orders:
                    self._commit([order])
                return
            failed = Unavailable(
                "the decision could not be made durable; ask again with the same key"
            )
            failed.__cause__ = error
            for order in orders:
                order.future.set_exception(failed)
            return
        for order, answer in zip(orders, answers, strict=True):
            if isinstance(answer, TallystickError):
                order.future.set_exception(answer)
            else:
                order.future.set_result(answer)

    def _decide(self, orders: Sequence[Order]) -> list[Any]:
        """Run the commands in one transaction; the answers are true once this returns."""
        streams = {stream for order in orders for stream in order.streams}
        contentions = 0
        while True:
            try:
                with self._database.writer.begin():
                    turn = self._database.begin(sorted(streams))
                    now_ms = self._time(turn)
                    for learn in self._learn:
                        learn(turn, now_ms)
                    batch = Batch(self._database, self._scribe, turn, now_ms, self._forget_all)
                    for prepare in self._prepare:
                        prepare(batch, streams)
                    answers = [self._answer(order.command, batch) for order in orders]
                    batch.close()
            except Undeclared as needed:
                streams.update(needed.streams)
            except sa.exc.DBAPIError as error:
                contentions += 1
                if contentions > CONTENTIONS_MAX or not self._database.contended(error):
                    raise
            else:
                return answers
            self._forget_all()

    def _time(self, turn: Turn) -> int:
        """The decision time: it never runs backwards, whatever the clock does."""
        clock_ms = turn.now_ms if self._clock is None else self._clock()
        assert clock_ms is not None, "either the database has a clock or the writer"
        latest_ms = max(self._now_ms, turn.last_ms)
        behind = clock_ms < latest_ms - CLOCK_STEP_MS
        if behind and not self._clock_behind:
            _log.warning("clock_behind", by_ms=latest_ms - clock_ms)
        self._clock_behind = behind
        self._now_ms = max(latest_ms, clock_ms)
        return self._now_ms

    def _answer(self, command: Command[Any], batch: Batch) -> Any:
        if self.fault is not None:  # a command of the same batch found it
            return Unavailable(self.fault)
        writes = batch.writes
        try:
            return command(batch)
        except TallystickError as refusal:
            if batch.writes != writes:
                raise RuntimeError("a command refused after it had written") from refusal
            return refusal

    def _abandon(self, error: Exception) -> None:
        if isinstance(error, sa.exc.DBAPIError) and (name := self._database.lasting(error)):
            self.fault = f"the database failed ({name}); restart once the cause is mended"
        self._forget_all()
        with contextlib.suppress(OSError):  # the line may not fit on the same full disk
            _log.error("batch_abandoned", error=repr(error))

    def _forget_all(self) -> None:
        for forget in self._forget:
            forget()
