"""Ctrl-C while somebody is asked who does not answer: no traceback, and nobody waits any longer.

What may have been done nevertheless is told.
"""

import contextlib
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
from tests.cli.processes import ANSI, COMMAND, PATIENCE_S, environment

EVIDENCE = Path(__file__).parents[1] / "audit" / "vectors" / "evidence" / "whole.json"
LOG_KEY = json.loads(EVIDENCE.read_bytes())["log"]["verifier_key"]
INTERRUPTED = 130
STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: 143}


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

    def asked(self) -> str:
        """What else of its first question has come."""
        return self._kept[0].recv(65536).decode().lower()

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
    silent: Silent,
    arguments: tuple[str | Path, ...],
    errors: int = subprocess.PIPE,
    how: signal.Signals = signal.SIGINT,
    **variables: str,
) -> tuple[int, str, str]:
    """Press Ctrl-C once the silent one was asked: exit status, output and errors."""
    known = {"url": silent.url, "api_key": "zfi_test_" + "0" * 40} | variables
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(**known) | {"TERM": "xterm"},
    )
    try:
        assert silent.heard.wait(PATIENCE_S)
        process.send_signal(how)
        out, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, out, said or ""


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("command", ["verify", "evidence", "reconcile", "fsck", "compare"])
def test_a_signal_ends_it_at_once_with_its_own_status(
    shell: Shell, silent: Silent, tmp_path: Path, command: str, how: signal.Signals
) -> None:
    on_chain = ("--rpc", silent.url, "--registry", "0x" + "11" * 20)
    asked: dict[str, tuple[str | Path, ...]] = {
        "verify": (EVIDENCE, *on_chain),
        "evidence": ("sess_x", "-o", tmp_path / "evidence.json"),
        "reconcile": (),
        "fsck": ("--data-dir", shell.directory / "data", *on_chain),
        "compare": (EVIDENCE, silent.url, "--log-key", LOG_KEY),
    }
    ended = interrupted(silent, (command, *asked[command]), how=how)
    assert ended == (STATUS[how], "", "")
    assert not (tmp_path / "evidence.json").exists()


ASKING = {
    "whether": ("sessions", "revoke", "sess_x"),
    "what": ("sessions", "create"),
    "a secret": ("intents", "confirm", "intent_x"),
}


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("words", ASKING.values(), ids=ASKING.keys())
def test_a_signal_while_somebody_at_a_terminal_is_asked_ends_it_as_elsewhere(
    words: tuple[str, ...], how: signal.Signals
) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *words],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,  # so that it is no terminal of ours that a secret is asked on
        env=environment(api_key="zfi_x", session_token="zai_x") | {"TERM": "xterm"},
    )
    os.close(secondary)
    try:
        shown = b""
        while not shown.endswith(b": "):
            shown += os.read(primary, 1)
        process.send_signal(how)
        assert process.wait(PATIENCE_S) == STATUS[how]
        said = b""
        with contextlib.suppress(OSError):  # so does Linux say that there is nothing more
            said = os.read(primary, 65536)
        told = "aborted: nothing was done" if how == signal.SIGINT else ""
        assert ANSI.sub("", said.decode()).strip() == told
    finally:
        process.kill()
        os.close(primary)


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


@pytest.mark.parametrize("how", STATUS)
def test_tools_on_stdio_end_at_a_signal_though_their_input_goes_on(how: signal.Signals) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}}
    hello |= {"clientInfo": {"name": "t", "version": "1"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    process = subprocess.Popen(
        [COMMAND, "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(session_token="zai_x"),
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(how)
        assert process.wait(PATIENCE_S) == -how
    finally:
        process.kill()
        process.communicate()


def test_who_has_sigterm_ignored_is_not_ended_by_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threads = set(threading.enumerate())
    try:
        with signals_heard():
            (hearing,) = set(threading.enumerate()) - threads
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    hearing.join(PATIENCE_S)  # else it closes its socket while another test counts them


def test_who_heard_signals_leaves_nothing_behind() -> None:
    descriptors = Path("/proc/self/fd")
    kept = signal.SIGURG, signal.SIGTERM
    before = [signal.getsignal(each) for each in kept], len(list(descriptors.iterdir()))
    threads = set(threading.enumerate())
    with signals_heard():
        (hearing,) = set(threading.enumerate()) - threads
    hearing.join(PATIENCE_S)
    assert not hearing.is_alive()
    handlers = [signal.getsignal(each) for each in kept]
    assert (handlers, len(list(descriptors.iterdir()))) == before


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
