"""`tallystick serve` in a process that is forked from one which has imported everything already.

It starts in a fraction of the time; who kills a server a thousand times needs that.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# What a server imports only when it needs it.
import engine.chain.embedded
import engine.chain.embedded_rpc  # noqa: F401
import tallystick.cli
from tests.durability.processes import forked
from tests.ledger.served import Served


class ForkedServer(Served):
    """See the module, and `Served`."""

    def _begin(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> Any:
        return _Forked([str(word) for word in command], environment, self._said)


class _Forked:
    """As much of `subprocess.Popen` as `Served` uses."""

    def __init__(self, command: list[str], environment: Mapping[str, str], said: Path) -> None:
        ours, theirs = forked().Pipe(duplex=False)
        self._process = forked().Process(
            target=_serve, args=(command, dict(environment), said, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()))
        ours.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("serve", timeout or 0)
        return self._process.exitcode


def _serve(command: list[str], environment: dict[str, str], said: Path, told: Connection) -> None:
    """What the process does: what the command would."""
    errors = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(told.fileno(), 1)
    os.dup2(errors, 2)
    told.close()
    os.close(errors)
    # Those that are there know whether what was behind them could be sought in.
    sys.stdout, sys.stderr = (os.fdopen(at, "w", closefd=False) for at in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    tallystick.cli.main()
