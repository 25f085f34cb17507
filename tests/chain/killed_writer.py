"""Opens a chain and sends to it until it is killed; run by test_embedded_kill.py.

For every line of its input, a path and a number, it forks a writer, prints `pid N`, and after that
writer's death `dead`. A writer prints `sent HASH` after each transaction that was accepted, and if
the number is not 0 kills itself as it executes that many SQL statements that write. Forking saves
importing the EVM for each kill.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from engine.chain.embedded import EmbeddedChain
from engine.chain.sender import send

EMITS_ONE_LOG = bytes.fromhex("60006000a000")  # as it is created: LOG0(0, 0), STOP


def say(line: str) -> None:
    """Write a line in one system call, so that a kill never leaves half of one."""
    os.write(1, f"{line}\n".encode())


def die_at_write(statements: int) -> None:
    """Let every connection opened from now on count what it writes, and die in time."""
    remaining = statements
    connect = sqlite3.connect

    def count(sql: str) -> None:
        nonlocal remaining
        remaining -= not sql.startswith(("SELECT", "PRAGMA"))
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting_connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = counting_connect  # type: ignore[assignment]


def write_until_killed(path: Path, statements: int) -> None:
    """Send as fast as the chain goes."""
    if statements:
        die_at_write(statements)
    chain = EmbeddedChain(path)
    while True:
        say(f"sent {send(chain, chain.faucet, to=None, data=EMITS_ONE_LOG).hex()}")


def main() -> None:
    """Serve the input until it ends."""
    for line in sys.stdin:
        path, statements = line.split()
        pid = os.fork()
        if pid == 0:
            write_until_killed(Path(path), int(statements))
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()
