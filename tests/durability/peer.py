"""An engine in a process of its own that does what it is told over a pipe.

Its host's clock may be wrong, it may stop itself (SIGSTOP) inside a transaction, and it may die
(SIGKILL) before it hears that one is committed.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from engine.clock import system_clock
from engine.db.pipeline import Pipeline
from engine.engine import Engine, open_engine
from engine.errors import TallystickError
from engine.settings import Settings
from tests.durability.payers import Question, submit, told
from tests.durability.processes import forked

PATIENCE_S = 60


def serve(settings: Settings, talk: Connection, skew_ms: int) -> None:
    """What the process does: one answer to each command, until there is nobody to talk to."""
    # Whatever in this process asks Python for the time of the host.
    for name, units_per_ms in (("time_ns", 1_000_000), ("time", 0.001)):
        setattr(time, name, _later(getattr(time, name), skew_ms * units_per_ms))
    engine = open_engine(settings)
    talk.send("open")
    try:
        while True:
            talk.send(_done(engine, *talk.recv()))
    except EOFError:
        engine.close()


def _later(clock: Callable[[], float], by: float) -> Callable[[], float]:
    return lambda: clock() + by


def _done(engine: Engine, what: str, *details: Any) -> Any:
    try:
        if what == "pay":
            return told(submit(engine, Question(*details)).result())
        if what == "freeze":
            return _stop_before_the_next_commit(engine)
        if what == "die":
            return _die_before_the_next_commit_is_heard_of(engine)
        if what == "tick":
            return engine.tick()
        if what == "create":
            return engine.create_session(*details)[0].id
        assert what == "clock"
        return system_clock()
    except TallystickError as error:
        return error.code


def _stop_before_the_next_commit(engine: Engine) -> None:
    honest = engine.database.finish

    def finish(*rest: Any) -> None:
        engine.database.finish = honest  # type: ignore[method-assign]
        # This very thread, at once: it could commit before another had the process stop.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        honest(*rest)

    engine.database.finish = finish  # type: ignore[method-assign]


def _die_before_the_next_commit_is_heard_of(engine: Engine) -> None:
    honest = engine.database.finish

    def finish(*rest: Any) -> None:
        with patch.object(Pipeline, "_receive", lambda *_: signal.raise_signal(signal.SIGKILL)):
            honest(*rest)

    engine.database.finish = finish  # type: ignore[method-assign]


class Peer:
    """That process, as its parent sees it."""

    def __init__(self, talk: Connection, process: psutil.Process) -> None:
        self.talk, self.process = talk, process

    def ask(self, *command: Any) -> Any:
        """A command and its answer: a code if it was refused."""
        self.tell(*command)
        return self.answer()

    def tell(self, *command: Any) -> None:
        """A command, without waiting."""
        self.talk.send(command)

    def answer(self) -> Any:
        """The next answer."""
        assert self.talk.poll(PATIENCE_S), "it says nothing"
        return self.talk.recv()

    @property
    def frozen(self) -> bool:
        """Whether it has stopped."""
        return bool(self.process.status() == psutil.STATUS_STOPPED)


@contextmanager
def peer(settings: Settings, directory: Path, skew_ms: int = 0) -> Iterator[Peer]:
    """Start one with these settings, in a directory of its own; in the end it is gone."""
    context = forked()
    ours, theirs = context.Pipe()
    given = settings.model_copy(update={"data_dir": directory})
    process = context.Process(target=serve, args=(given, theirs, skew_ms), daemon=True)
    process.start()
    theirs.close()
    opened = Peer(ours, psutil.Process(process.pid))
    try:
        assert opened.answer() == "open"
        yield opened
    finally:
        ours.close()
        process.kill()
        process.join()
