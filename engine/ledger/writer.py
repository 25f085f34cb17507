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
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from engine.audit.canonical import encode_own
from engine.clock import Clock
from engine.db.sqlite import Database
from engine.db.tables import OutboxEvent, Record, table
from engine.errors import TallystickError, Unavailable
from engine.identifiers import Identifiers
from engine.ledger.log import Log
from engine.ledger.stream import Stream

Answer = TypeVar("Answer")

BATCH_COMMANDS_MAX = 512
CLOCK_STEP_MS = 1_000
"""A clock that is further behind than this was set back, which somebody should know."""
_PASSING_FAULTS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_CONSTRAINT")

_log = structlog.get_logger(__name__)
_records = table(Record)
_outbox = table(OutboxEvent)


class Batch:
    """What a command sees: one transaction, one decision time, and the ways to write in it."""

    def __init__(self, database: Database, log: Log, identifiers: Identifiers, now_ms: int) -> None:
        self.now_ms = now_ms
        self.identifiers = identifiers
        self.writes = 0
        self._database = database
        self._connection = database.writer
        self._log = log
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

    def record(self, stream: Stream, kind: str, body: dict[str, Any]) -> int:
        """Append to the audit log and return the record's number in its stream."""
        row = self._log.append(self._connection, stream, time_ms=self.now_ms, kind=kind, body=body)
        self.insert(_records, row)
        return int(row["seq"])

    def event(self, stream: Stream, name: str, payload: dict[str, Any]) -> None:
        """Put an event into the outbox beside the record of the stream that was just written."""
        self.insert(
            _outbox,
            {
                "leaf_index": self._log.tree.size - 1,
                **stream.columns(),
                "stream": stream.id,
                "seq": self._log.head_seq(stream.id) - 1,
                "event": name,
                "payload_json": encode_own(payload).decode(),
                "created_ms": self.now_ms,
                "delivered_ms": None,
            },
        )

    def flush(self) -> None:
        """Send the inserts that wait to the database."""
        rows, self._rows = self._rows, {}
        for into, values in rows.items():
            self._database.insert_many(into, values)


Command = Callable[[Batch], Answer]


class Writer:
    """Runs commands on a thread of its own. `start` first, `stop` last."""

    def __init__(
        self, database: Database, log: Log, identifiers: Identifiers, clock: Clock
    ) -> None:
        self._database = database
        self._log = log
        self._identifiers = identifiers
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[Command[Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._forget: list[Callable[[], None]] = []
        self._accepting = threading.Lock()
        self._stopped = False
        self._now_ms = 0
        self._clock_behind = False
        self.fault: str | None = None

    def on_abandoned_batch(self, forget: Callable[[], None]) -> None:
        """Call `forget` when memory may differ from the database and must be read again."""
        self._forget.append(forget)

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

    def submit(self, command: Command[Answer]) -> "Future[Answer]":
        """Queue a command; the future is done once its transaction is durable."""
        future: Future[Answer] = Future()
        with self._accepting:
            if self._stopped:
                future.set_exception(Unavailable("the engine is stopping"))
            else:
                self._queue.put((command, future))
        return future

    def call(self, command: Command[Answer]) -> Answer:
        """Run a command and wait for its commit."""
        return self.submit(command).result()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            commands = [first]
            last = False
            with contextlib.suppress(queue.Empty):
                while len(commands) < BATCH_COMMANDS_MAX and not last:
                    item = self._queue.get_nowait()
                    if item is None:
                        last = True
                    else:
                        commands.append(item)
            self._commit([c for c in commands if c[1].set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, commands: list[tuple[Command[Any], Future[Any]]]) -> None:
        if self.fault is not None:
            for _, future in commands:
                future.set_exception(Unavailable(self.fault))
            return
        answers: list[tuple[Future[Any], Any]] = []
        connection = self._database.writer
        try:
            with connection.begin():
                batch = Batch(self._database, self._log, self._identifiers, self._time())
                for command, future in commands:
                    answers.append((future, self._answer(command, batch)))
                batch.flush()
        except Exception as error:  # noqa: BLE001 (whatever it was, nobody may be told it happened)
            self._abandon(error)
            if len(commands) > 1 and not isinstance(error, sa.exc.DBAPIError):
                for one in commands:
                    self._commit([one])
                return
            for _, future in commands:
                future.set_exception(
                    Unavailable(
                        "the decision could not be made durable; ask again with the same key"
                    )
                )
            return
        self._log.commit()
        for future, answer in answers:
            if isinstance(answer, TallystickError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _time(self) -> int:
        """The decision time: it never runs backwards, whatever the clock does."""
        clock_ms = self._clock()
        latest_ms = max(self._now_ms, self._log.last_time_ms)
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
        name = str(getattr(getattr(error, "orig", None), "sqlite_errorname", None))
        if isinstance(error, sa.exc.DBAPIError) and not name.startswith(_PASSING_FAULTS):
            self.fault = f"the database failed ({name}); restart once the cause is mended"
        self._log.roll_back()
        for forget in self._forget:
            forget()
        with contextlib.suppress(OSError):  # the line may not fit on the same full disk
            _log.error("batch_abandoned", error=repr(error))
