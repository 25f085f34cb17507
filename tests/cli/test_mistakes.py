"""What people get wrong, and that the one line they get says what it is."""

import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from subprocess import PIPE, Popen, run

import pytest

from tallystick.cli.output import dollars
from tests.cli.conftest import Shell
from tests.cli.processes import (
    ANSI,
    COMMAND,
    PATIENCE_S,
    called,
    environment,
    one_line,
    tallystick,
)
from tests.cli.terminal import on_a_terminal

REFUSAL = "invalid_parameter: --yes: is needed where nobody can be asked\n"


def test_where_nobody_can_be_asked_nothing_but_the_refusal_is_said(shell: Shell) -> None:
    for arguments in (("sessions", "revoke", "x"), ("keys", "rotate", "x")):
        for more in ((), ("--json",)):
            done = shell.process(*arguments, *more)
            assert (done.returncode, done.stdout, done.stderr) == (2, "", REFUSAL)
        known = environment(url=shell.server.url, api_key=shell.key)
        for closed in ("<&-", "0>/dev/null"):  # the latter is what nohup makes of a terminal
            command = ["sh", "-c", f'exec "$@" {closed}', "sh", COMMAND, *arguments]
            done = run(command, capture_output=True, text=True, check=False, env=known)
            assert (done.returncode, done.stdout, done.stderr) == (2, "", REFUSAL), closed
        done = shell(*arguments, "--json", given="perhaps\n")
        assert one_line(done, 1) == "aborted: nothing was done"


def test_a_program_that_answers_is_asked_first_or_has_answered_and_reads_the_question(
    shell: Shell,
) -> None:
    command = [COMMAND, "keys", "rotate", "x"]
    known = environment(url=shell.server.url, api_key=shell.key)
    question = "Rotate x? It is not valid any more then.\n"
    for given, said in (("n\n", "aborted: nothing was done\n"), ("", REFUSAL)):
        with Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env=known) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == question  # it waits for that before it answers
            assert asking.communicate(given, timeout=PATIENCE_S) == ("", said)
    done = tallystick("keys", "rotate", "x", given="n\n", url=shell.server.url, api_key=shell.key)
    assert (one_line(done, 1), done.stdout) == ("aborted: nothing was done", question)


@pytest.mark.parametrize("amount", ["-1", "-12.50", "-.5"])
@pytest.mark.parametrize("words", [("pay",), ("capture", "pay_1"), ("execute", "--to", "0x")])
def test_an_amount_below_zero_is_no_option(
    shell: Shell, words: tuple[str, ...], amount: str
) -> None:
    line = one_line(shell(*words, amount), 2)
    said = f"what begins with {amount[:2]} is no amount (see tallystick {words[0]} --help)"
    assert line == f"usage: AMOUNT: {said}"
    assert one_line(shell("sessions", "list", amount), 2).startswith("usage: No such option: -")


@pytest.mark.parametrize("key", ["zfi_test_x ", "zfi_test_\tx\t", "zfi\x00x", "zfi_test_…"])
def test_a_key_that_cannot_be_sent_is_said_to_be_no_more_than_that(shell: Shell, key: str) -> None:
    line = one_line(shell("sessions", "list", "--api-key", key), 1)
    assert line == (
        "not_sendable: a key or token begins or ends with a blank, or holds control characters "
        "or any but ASCII"
    )


def test_a_condition_that_is_none_is_told_with_what_one_is(shell: Shell) -> None:
    command = ("sessions", "create", "--agent-id", "a", "--wallet", "w", "--condition")
    line = one_line(shell(*command, "be frugal"), 1)
    assert line == (
        "invalid_parameter: --condition: is none of the sentences that a condition can be: "
        "'never merchant casino' is one; docs/api.md#conditions has them all"
    )
    assert shell(*command, "never merchant casino").returncode == 0
    assert "docs/" not in one_line(shell(*command, "lifetime at most 5.0 USD"), 1)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (1855.028, "$1,855.028"),
        (Decimal("1855.028000"), "$1,855.028"),
        (12.5, "$12.50"),
        (0.1 + 0.2, "$0.30"),
        (0, "$0.00"),
        (0.000001, "$0.000001"),
        (Decimal("999999999.999999"), "$999,999,999.999999"),
        (None, "unlimited"),
    ],
)
def test_dollars_have_cents_and_no_zeros_behind_what_is_less(
    amount: float | Decimal | None, shown: str
) -> None:
    assert dollars(amount) == shown


class Resource(BaseHTTPRequestHandler):
    """Something on the web that is not there; some bodies end their line."""

    def do_GET(self) -> None:
        """What is asked for decides."""
        body = self.path.removeprefix("/").encode().replace(b"%0A", b"\n")
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is told."""


@pytest.fixture
def web() -> Iterator[str]:
    """The URL of a server of that."""
    with HTTPServer(("127.0.0.1", 0), Resource) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "seen"), [("gone", "gone\n"), ("gone%0A", "gone\n"), ("", "")], ids=str
)
def test_a_body_ends_its_last_line_on_a_terminal_alone(web: str, path: str, seen: str) -> None:
    known = environment(session_token="zai_x")
    status, shown = on_a_terminal([COMMAND, "fetch", f"{web}/{path}"], 80, known | {"NO_COLOR": ""})
    assert status == 1
    assert ANSI.sub("", shown) == f"{seen}http_error: the answer is a 404\n"
    done = called("fetch", f"{web}/{path}", session_token="zai_x")
    assert done.stdout == path.replace("%0A", "\n")
