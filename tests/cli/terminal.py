"""What a person sees: a command on a terminal of so many columns."""

import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path

from tests.cli.processes import PATIENCE_S


def on_a_terminal(
    command: Sequence[str | Path],
    columns: int,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> tuple[int, str]:
    """Run a command with a terminal for all that it prints: its exit status and what was seen."""
    primary, secondary = pty.openpty()
    ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    known = {name: value for name, value in env.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
        env=known | {"TERM": "xterm-256color"},
        cwd=cwd,
    )
    os.close(secondary)
    seen = b""
    try:
        while part := os.read(primary, 65536):
            seen += part
    except OSError:  # so does Linux say that the other side is closed
        pass
    os.close(primary)
    return process.wait(PATIENCE_S), seen.decode().replace("\r\n", "\n")
