"""The one writer: whatever commands wait are run together and committed in one durable transaction.

A command is answered after its commit, never before. It may refuse with a `TallystickError` only
while it has not written anything; any other failure gives up the whole batch: the transaction is
rolled back, and memory is dropped and read again from the database. If the database failed, every
caller in the batch hears `Unavailable` and finds out with its idempotency key what happened; if a
command did, the others are run again, each by itself, and its caller alone hears that.
After a failure that may have lost writes (an I/O error, a failed fsync) nothing is acknowledged any
more until the process is started again.

For what an event loop asks for, the thread is woken when that loop has gone through all that it had
at hand. Woken by the first of many requests it would commit that one alone; and while it waits for
the interpreter, each socket that the loop reads or writes wakes it for nothing.
"""

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from engine.clock import Clock
from engine.db.database import Database, Turn, of_its_rows
from engine.errors import TallystickError, Unavailable
from engine.ledger.batch import Answer, Batch, Command, Forget, Undeclared
from engine.ledger.scribe import Scribe

BATCH_COMMANDS_MAX = 512
CLOCK_STEP_MS = 1_000
"""A clock that is further behind than this was set back, which somebody should know."""
CONTENTIONS_MAX = 5
"""So often a batch is begun again because other processes were in its way."""

_log = structlog.get_logger(__name__)


class Awaited(Future[Answer]):
    """The answer to a command. Who blocks for it does not wait for an event loop to go on."""

    def __init__(self, hand_over: Callable[[], None]) -> None:
        """`hand_over` gives the writer what was asked of it until now."""
        super().__init__()
        self._hand_over = hand_over

    def result(self, timeout: float | None = None) -> Answer:
        """See `Future.result`."""
        if not self.done():
            self._hand_over()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `Future.exception`."""
        if not self.done():
            self._hand_over()
        return super().exception(timeout)


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
        self._gathered: list[Order] = []
        self._gathering: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._forget: list[Callable[[], None]] = [scribe.heads.clear]
        self._forget_of: list[Forget] = []
        self._learn: list[Callable[[Turn, int], None]] = []
        self._prepare: list[Callable[[Batch, Collection[str]], None]] = []
        self._accepting = threading.Lock()
        self._process = os.getpid()
        self._stopped = False
        self._now_ms = 0
        self._clock_behind = False
        self.fault: str | None = None
        self.silent = False
        """Whether the database did not answer when something was last to be written to it."""

    def on_abandoned_batch(self, forget: Callable[[], None]) -> None:
        """Call `forget` when memory may differ from the database and must be read again."""
        self._forget.append(forget)

    def on_forgotten(self, forget: Forget) -> None:
        """Call `forget` when a command changed what memory may hold of a workspace's sessions."""
        self._forget_of.append(forget)

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
            self._put_gathered()
            self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, command: Command[Answer], *streams: str) -> "Future[Answer]":
        """Queue a command; the future is done once its transaction is durable.

        `streams` are those that it reads the end of or appends to. One that needs another is begun
        again, with everything that was to be committed with it.
        """
        future: Future[Answer] = Awaited(self._hand_over)
        if os.getpid() != self._process:
            # The thread is not here, and the connection is somebody else's.
            future.set_exception(Unavailable("the engine was opened before this process was made"))
            return future
        with self._accepting:
            if self._stopped:
                future.set_exception(Unavailable("the engine is stopping"))
                return future
            self._gathered.append(Order(command, streams, future))
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self._put_gathered()
            else:
                if self._gathering is not loop:
                    loop.call_soon(self._hand_over)
                    self._gathering = loop
        return future

    def call(self, command: Command[Answer], *streams: str) -> Answer:
        """Run a command and wait for its commit."""
        return self.submit(command, *streams).result()

    def _hand_over(self) -> None:
        with self._accepting:
            self._put_gathered()

    def _put_gathered(self) -> None:
        self._gathering = None
        for order in self._gathered:
            self._queue.put(order)
        self._gathered.clear()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            waiting = orders = [first]
            last = False
            try:
                with contextlib.suppress(queue.Empty):
                    while len(orders) < BATCH_COMMANDS_MAX and not last:
                        item = self._queue.get_nowait()
                        if item is None:
                            last = True
                        else:
                            orders.append(item)
                waiting = [o for o in orders if o.future.set_running_or_notify_cancel()]
                self._commit(waiting)
            except BaseException as error:  # noqa: BLE001 (without this thread nobody is answered)
                self._end_acknowledging(error, waiting)
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
        self._note_silence(None)
        for order, answer in zip(orders, answers, strict=True):
            if isinstance(answer, TallystickError):
                order.future.set_exception(answer)
            else:
                order.future.set_result(answer)
        if name := self._database.tidy():
            self._fail(name)
            with contextlib.suppress(OSError):
                _log.error("checkpoint_failed", reason=name)

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
                    batch = Batch(self._database, self._scribe, turn, now_ms, self._forget_of)
                    for prepare in self._prepare:
                        prepare(batch, streams)
                    answers = [self._answer(order.command, batch) for order in orders]
                    batch.close()
            except Undeclared as needed:
                streams.update(needed.streams)
                if not needed.written:
                    continue
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
        return batch.answer(command)

    def _abandon(self, error: Exception) -> None:
        if isinstance(error, sa.exc.DBAPIError) and (name := self._database.lasting(error)):
            self._fail(name)
        self._forget_all()
        silence = error if self._database.shared and _is_silence(error) else None
        with contextlib.suppress(OSError):  # the line may not fit on the same full disk
            if silence is None:
                _log.error("batch_abandoned", error=repr(error))
            self._note_silence(silence)

    def _end_acknowledging(self, error: BaseException, waiting: Sequence[Order]) -> None:
        """What is not provided for: whoever waits hears of it, and so does whoever comes."""
        fault = self.fault = f"the writer failed ({type(error).__name__}); restart"
        for order in waiting:
            with contextlib.suppress(InvalidStateError):  # answered, or nobody waits any more
                order.future.set_exception(Unavailable(fault))
        with contextlib.suppress(OSError):
            _log.error("writer_failed", error=repr(error))

    def _fail(self, name: str) -> None:
        self.fault = f"the database failed ({name}); restart once the cause is mended"

    def _note_silence(self, error: Exception | None) -> None:
        """Log that the database does not answer when that begins and when it ends."""
        was, self.silent = self.silent, error is not None
        if self.silent and not was:
            _log.warning("database_silent", reason=repr(error))
        elif was and not self.silent:
            _log.warning("database_heard")

    def _forget_all(self) -> None:
        for forget in self._forget:
            forget()


def _is_silence(error: Exception) -> bool:
    """Whether the server could not be reached or has gone; whatever else it says has a state."""
    if not isinstance(error, sa.exc.DBAPIError) or of_its_rows(error):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None
