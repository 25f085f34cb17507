"""A shell that somebody types into, line by line."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

PATIENCE_S = 60
_ENDED = "this command ended with"


class Terminal:
    """A bash of its own; what is exported or activated in it stays."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.is_busy = False
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=env,
            start_new_session=True,  # so that Ctrl-C reaches all that runs in it, and no more
        )

    def run(self, command: str) -> str:
        """Type a command, and `y` if it asks; what it printed. It has to succeed."""
        self._type(f"{{ {command}\n}} <<<y")
        return self._read()

    def start(self, command: str, until: str) -> str:
        """Type a command that keeps the terminal; what it printed up to a line with `until`."""
        self._type(command)
        self.is_busy = True
        return self._read(until)

    def ctrl_c(self) -> str:
        """End what keeps the terminal; what it said to that. It has to succeed."""
        os.killpg(self._bash.pid, signal.SIGINT)
        self.is_busy = False
        return self._read()

    def close(self) -> None:
        """End the shell with all that runs in it."""
        self._kill()
        self._bash.communicate()

    def _type(self, command: str) -> None:
        assert not self.is_busy
        assert self._bash.stdin is not None
        self._bash.stdin.write(f'{command}\necho "{_ENDED} $?"\n')
        self._bash.stdin.flush()

    def _read(self, until: str | None = None) -> str:
        assert self._bash.stdout is not None
        printed = ""
        watch = threading.Timer(PATIENCE_S, self._kill)
        watch.start()
        try:
            for line in self._bash.stdout:
                if ended := re.fullmatch(rf"{_ENDED} (\d+)\n", line):
                    assert (ended[1], until) == ("0", None), printed
                    return printed
                printed += line
                if until is not None and until in line:
                    return printed
        finally:
            watch.cancel()
        raise AssertionError(f"the terminal was closed: {printed}")

    def _kill(self) -> None:
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, signal.SIGKILL)
