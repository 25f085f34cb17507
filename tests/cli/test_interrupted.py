"""Ctrl-C while somebody is asked who does not answer: no traceback, and nobody waits any longer."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystick.cli.signals import signals_heard
from tests.cli.conftest import Shell
from tests.cli.processes import COMMAND, PATIENCE_S, environment

EVIDENCE = Path(__file__).parents[1] / "audit" / "vectors" / "evidence" / "whole.json"
LOG_KEY = json.loads(EVIDENCE.read_bytes())["log"]["verifier_key"]
INTERRUPTED = 130


class Silent:
    """A server that takes every connection and says nothing; `heard` is set by a first question."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self._kept: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        """Hang up."""
        for kept in (self._listening, *self._kept):
            kept.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # it was closed
                return
            self._kept.append(connection)
            connection.recv(1)
            self.heard.set()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


def interrupted(
    silent: Silent, arguments: tuple[str | Path, ...], errors: int = subprocess.PIPE
) -> tuple[int, str, str]:
    """Press Ctrl-C once the silent one was asked: exit status, output and errors."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(url=silent.url, api_key="zfi_test_" + "0" * 40) | {"TERM": "xterm"},
    )
    try:
        assert silent.heard.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, out, said or ""


@pytest.mark.parametrize("command", ["verify", "evidence", "reconcile", "fsck", "compare"])
def test_ctrl_c_ends_it_at_once_with_its_own_status(
    shell: Shell, silent: Silent, tmp_path: Path, command: str
) -> None:
    on_chain = ("--rpc", silent.url, "--registry", "0x" + "11" * 20)
    asked: dict[str, tuple[str | Path, ...]] = {
        "verify": (EVIDENCE, *on_chain),
        "evidence": ("sess_x", "-o", tmp_path / "evidence.json"),
        "reconcile": (),
        "fsck": ("--data-dir", shell.directory / "data", *on_chain),
        "compare": (EVIDENCE, silent.url, "--log-key", LOG_KEY),
    }
    assert interrupted(silent, (command, *asked[command])) == (INTERRUPTED, "", "")
    assert not (tmp_path / "evidence.json").exists()


def test_ctrl_c_on_a_terminal_does_not_wait_for_the_answer_either(silent: Silent) -> None:
    """There the answer is waited for beside the progress bar, which is no output."""
    primary, secondary = pty.openpty()
    try:
        assert interrupted(silent, ("reconcile",), secondary) == (INTERRUPTED, "", "")
    finally:
        os.close(secondary)
        os.close(primary)


WAITING = """
import signal, socket, threading, time
from tallystick.cli.signals import signals_heard

def press():
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

nobody, _kept = socket.socketpair()
with signals_heard():
    threading.Thread(target=press, daemon=True).start()
    nobody.recv(1)
"""


def test_ctrl_c_is_heard_though_it_does_not_interrupt_what_waits() -> None:
    """Here another thread gets the signal, in place of one that comes just before the waiting."""
    done = subprocess.run([sys.executable, "-c", WAITING], timeout=PATIENCE_S, capture_output=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (-2, b"KeyboardInterrupt")


def test_who_heard_signals_leaves_nothing_behind() -> None:
    descriptors = Path("/proc/self/fd")
    before = signal.getsignal(signal.SIGURG), len(list(descriptors.iterdir()))
    threads = set(threading.enumerate())
    with signals_heard():
        (hearing,) = set(threading.enumerate()) - threads
    hearing.join(PATIENCE_S)
    assert not hearing.is_alive()
    assert (signal.getsignal(signal.SIGURG), len(list(descriptors.iterdir()))) == before


def test_off_the_main_thread_nothing_is_heard_and_nothing_fails() -> None:
    before = set(threading.enumerate())
    begun: list[threading.Thread] = []

    def run() -> None:
        with signals_heard():
            begun.extend(set(threading.enumerate()) - before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_S)
    assert begun == [thread]
