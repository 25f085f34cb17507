"""A real `tallystick serve` in a process of its own, which may be killed at any moment."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

TALLYSTICK = Path(sys.executable).with_name("tallystick")
ADMIN_KEY = "zfi_test_" + "5a" * 32
OPERATOR = {"Authorization": f"Bearer {ADMIN_KEY}"}
HOLD_TTL_S = 2
ANCHOR_INTERVAL_S = 1


class Served:
    """A server on free ports over the embedded chain in `directory`; `url` once it is ready.

    `under` is the command that runs it, if one does; it must become the server, as `exec` would.
    """

    def __init__(
        self,
        directory: Path,
        under: Sequence[str | Path] = (),
        *,
        anchor_interval_s: int = ANCHOR_INTERVAL_S,
    ) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "TALLYSTICK_DATA_DIR": str(directory),
            "TALLYSTICK_PORT": "0",
            "TALLYSTICK_RPC_PORT": "0",
            "TALLYSTICK_ADMIN_KEY": ADMIN_KEY,
            "TALLYSTICK_HOLD_TTL_S": str(HOLD_TTL_S),
            "TALLYSTICK_POLL_INTERVAL_MS": "50",
            "TALLYSTICK_ANCHOR_INTERVAL_S": str(anchor_interval_s),
        }
        self._said = directory.with_suffix(".stderr")
        self._process = self._begin([*under, TALLYSTICK, "serve"], environment)
        self.url = self.rpc = self.registry = ""

    def _begin(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> Any:
        """The process, as `subprocess` knows one."""
        with self._said.open("ab") as said:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def ready(self) -> "Served":
        """Wait until it serves.

        Raises:
            RuntimeError: it ended instead, with what it said last.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.match(r"(REST|chain|registry) +.*?(http\S+|0x\w+)", line):
                name = {"REST": "url", "chain": "rpc", "registry": "registry"}[found[1]]
                setattr(self, name, found[2])
            if self.registry and self._answers():
                return self
        self._process.wait()
        raise RuntimeError(f"the server ended: {self._said.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._process.pid)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self._end()

    def complaints(self) -> list[str]:
        """What any server of this directory said of errors."""
        lines = self._said.read_text().splitlines()
        return [line for line in lines if '"level": "error"' in line or "Traceback" in line]

    def _answers(self) -> bool:
        """Wait for the first answer: the URL is told a little before anybody listens there."""
        while self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(self.url + "/healthz", trust_env=False).status_code == 200
            time.sleep(0.01)
        return False

    def _end(self) -> int:
        assert self._process.stdout is not None
        self._process.stdout.close()
        return int(self._process.wait(timeout=30))


def verify(evidence: Path, server: Served) -> int:
    """The exit status of `tallystick verify`, run as an auditor would."""
    done = subprocess.run(
        [TALLYSTICK, "verify", evidence, "--rpc", server.rpc, "--registry", server.registry],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"]},
    )
    if done.returncode not in (0, 3):
        raise AssertionError(f"verify: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.returncode
