"""A server of our own as a child process, whose address is in what it prints."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
STOP_TIMEOUT_S = 60


class Child:
    """Python with these arguments, from this repository; ready once it has printed a URL."""

    def __init__(
        self, *arguments: str, environment: Mapping[str, str], said: Path, ready: str = r"(http\S+)"
    ) -> None:
        with said.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is not for it: we stop it in order
            )
        self.url = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(ready, line):
                self.url = found[1]
                return
        self.stop()
        raise RuntimeError(f"it ended: {said.read_text()[-2000:]}")

    def stop(self) -> None:
        """SIGTERM; SIGKILL if it does not end."""
        self._process.terminate()
        self._end()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
