"""Engines that die by SIGKILL while they read a chain; started once, since loading takes long.

For every line of its input, a JSON object of settings and `steps`, it forks an engine that opens
its directory, which reads the chain. A step is a statement or a commit of the database or a request
to the chain; the engine kills itself at the given one. Prints `killed`, or `done` and how many
steps there were.
"""

import json
import os
import signal
import sys
from typing import Any

import httpx
import sqlalchemy as sa
import structlog

from engine.engine import open_engine
from engine.settings import Settings


class Steps:
    """Counts steps, and dies at the last."""

    def __init__(self, last: int) -> None:
        self.taken = 0
        self._last = last
        for event in ("before_cursor_execute", "commit"):
            sa.event.listen(sa.Engine, event, self.step)
        honest = httpx.Client.send

        def send(*arguments: Any, **named: Any) -> Any:
            self.step()
            return honest(*arguments, **named)

        httpx.Client.send = send  # type: ignore[method-assign]

    def step(self, *_: Any) -> None:
        self.taken += 1
        if self.taken == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def read(settings: dict[str, Any], last: int) -> int:
    """Open, which reads the chain, and close; returns how many steps it took."""
    steps = Steps(last)
    engine = open_engine(Settings(**settings))
    taken = steps.taken
    engine.close()
    return taken


def drop(*_: Any) -> Any:
    raise structlog.DropEvent


def main() -> None:
    """Serve the input until it ends."""
    structlog.configure(processors=[drop])
    for line in sys.stdin:
        asked = json.loads(line)
        answers, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(write, b"%d" % read(asked["settings"], asked["steps"]))
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        _, ended = os.waitpid(child, 0)
        taken = os.read(answers, 100).decode()
        os.close(answers)
        status = os.waitstatus_to_exitcode(ended)
        said = {0: f"done {taken}", -signal.SIGKILL: "killed"}.get(status, f"failed {status}")
        os.write(1, f"{said}\n".encode())


if __name__ == "__main__":
    main()
