"""The command as a person or a script runs it: a process, or `main` with what a process gets."""

import atexit
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from tallystick.cli import main

COMMAND = Path(sys.executable).with_name("tallystick")
PATIENCE_S = 60
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Done = subprocess.CompletedProcess[str]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of ours, and with these."""
    kept = {name: value for name, value in os.environ.items() if "TALLYSTICK" not in name}
    return kept | {f"TALLYSTICK_{name.upper()}": value for name, value in variables.items()}


def tallystick(
    *arguments: str | bytes | Path, given: str = "", cwd: Path | None = None, **variables: str
) -> Done:
    """Run the command to its end, without a terminal."""
    return subprocess.run(
        [COMMAND, *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=cwd,
        env=environment(**variables),
    )


class Typed(io.StringIO):
    """What a person types at a terminal."""

    def isatty(self) -> bool:
        return True


def called(
    *arguments: str | bytes | Path,
    given: str = "",
    typed: str | None = None,
    cwd: Path | None = None,
    **variables: str,
) -> Done:
    """The same inside this process, which takes a hundredth of the time. What is `typed` instead of
    `given` comes from a terminal."""
    argv = [os.fsdecode(argument) for argument in ("tallystick", *arguments)]
    out, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        mock.patch.multiple(
            sys, argv=argv, stdin=io.StringIO(given) if typed is None else Typed(typed)
        ),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Done(argv, ended.value.code, out.getvalue(), errors.getvalue())


def one_line(done: Done, status: int) -> str:
    """The one line in which a failure was told, after checking that it was only that."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    [line] = done.stderr.splitlines()
    return line


class Running:
    """A command that goes on until it is told to stop; `lines` is what it has printed."""

    def __init__(self, *arguments: str | Path, until: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        atexit.register(self._process.kill)  # a test that failed did not stop it
        self.pid = self._process.pid
        self.lines: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if until in line:
                return
        _, errors = self._process.communicate(timeout=PATIENCE_S)
        raise AssertionError(f"it ended: {errors}")

    def read_line(self) -> None:
        """Wait for one more line."""
        assert self._process.stdout is not None
        self.lines.append(self._process.stdout.readline().rstrip("\n"))

    def found(self, pattern: str) -> str:
        """The first group of a pattern in what was printed."""
        match = re.search(pattern, "\n".join(self.lines))
        assert match is not None, self.lines
        return match[1]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait; returns the status and what was said on standard error."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait until it ends by itself."""
        _, errors = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, errors


class Serving(Running):
    """`tallystick serve` on free ports."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        settings: dict[str, Any] = {
            "data_dir": str(directory),
            "port": "0",
            "rpc_port": "0",
            "anchor_interval_s": "0",
            "poll_interval_ms": "100",
        }
        super().__init__("serve", *arguments, until="registry", **(settings | variables))
        self.directory = directory
        self.url = self.found(r"REST +(http://\S+)")
        self.chain, self.rpc = re.findall(r"chain +(\S+) at (.+)", "\n".join(self.lines))[0]
        self.registry = self.found(r"registry +(0x[0-9a-f]{40})")
        wait_until_served(self.url)

    @property
    def first_key(self) -> str | None:
        """The admin key, if it was shown."""
        match = re.search(r"admin key.*: (\S+)", "\n".join(self.lines))
        return match[1] if match else None


def wait_until_served(url: str) -> None:
    """Return as soon as a server that says where it will be is there."""
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=url, trust_env=False) as client:
        while not _answers(client):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def wait_for(process: int) -> None:
    """Wait until a process that is not our child is gone."""
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
