"""A failure says what to do next; what the command says of itself can be read on any terminal."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tallystick import ApiError, Client
from tallystick.cli import app
from tests.cli.conftest import Shell
from tests.cli.losing import Losing, passed_on
from tests.cli.processes import COMMAND, Serving, called, environment, one_line
from tests.cli.terminal import on_a_terminal
from tests.cli.test_any_invocation import commands

ROOT = Path(__file__).parents[2]
ALL = commands(typer.main.get_command(app))


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "list"),
        ("sessions", "get", "s"),
        ("sessions", "revoke", "s"),
        ("sessions", "create", "--agent-id", "a", "--wallet", "w"),
        ("payments", "list"),
        ("payments", "get", "p"),
        ("capture", "p"),
        ("void", "p"),
        ("anchor",),
        ("evidence", "s"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("variables", [{}, {"api_key": ""}], ids=["unset", "empty"])
def test_without_a_key_it_says_where_one_goes(
    arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    line = one_line(called(*arguments, **variables), 1)
    assert line == "invalid_api_key: no API key: set TALLYSTICK_API_KEY or pass --api-key"


def test_without_a_session_token_it_says_where_one_goes(shell: Shell) -> None:
    line = one_line(shell("pay", "1"), 1)
    assert line == (
        "invalid_session_token: no session token: "
        "set TALLYSTICK_SESSION_TOKEN or pass --session-token"
    )


def test_a_session_token_is_enough_for_the_sessions_own_payments(shell: Shell) -> None:
    session = new_session(shell)
    alone = {"url": shell.server.url, "session_token": session["session_token"]}
    held = called("pay", "2", "--hold", **alone).stdout.split()[0]
    assert called("capture", held, "1.5", **alone).stdout.startswith(f"{held} captured: $1.50 of")
    other = called("pay", "1", "--hold", **alone).stdout.split()[0]
    assert called("void", other, **alone).stdout.startswith(f"{other} voided: ")
    assert called("payments", "get", other, **alone).returncode == 0
    listed = called("payments", "list", **alone).stdout.splitlines()
    assert [line.split()[1] for line in listed[1:]] == [other, held]


def new_session(shell: Shell) -> dict[str, Any]:
    with Client(shell.server.url, api_key=shell.key) as client:
        return client.create_session(agent_id="shopper", user_wallet=shell.owner.address)


LOST = {
    "closed": b"",
    "cut off": b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{",
    "a proxy answers": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
    "not JSON": b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
    "not HTTP": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST.keys())
def test_a_payment_whose_answer_is_lost_can_be_asked_for_again(shell: Shell, answer: bytes) -> None:
    session = new_session(shell)
    token = session["session_token"]
    with Losing(answer, passed_on(shell.server.url)) as between:
        done = shell("pay", "7", url=between.url, session_token=token)
        sent = between.header("Idempotency-Key")
    line = one_line(done, 1)
    asked_with = re.search(
        r": it may have been done; to do it once, ask again with --key (\S+)$", line
    )
    assert asked_with is not None, line
    assert asked_with[1] == sent
    again = shell("pay", "7", "--key", sent, session_token=token)
    assert (again.returncode, again.stderr) == (0, "")
    with Client(shell.server.url, session_token=token) as client:
        assert client.payments()["pagination"]["total"] == 1


def test_a_key_of_ones_own_is_repeated_so_that_a_shell_can_read_it(shell: Shell) -> None:
    with Losing() as between:
        done = shell("pay", "7", "--key", "an order", url=between.url, session_token="zai_x")
        assert between.header("Idempotency-Key") == "an order"
    assert one_line(done, 1).endswith("ask again with --key 'an order'")


def test_the_client_makes_a_key_for_each_payment_and_has_it_on_the_error() -> None:
    keys = []
    for given in (None, None, "mine"):
        with (
            Losing() as between,
            Client(between.url, session_token="zai_x", retries=0) as client,
        ):
            with pytest.raises(ApiError) as lost:
                client.pay("1", idempotency_key=given)
            sent = between.header("Idempotency-Key")
        assert (lost.value.code, lost.value.status) == ("no_answer", 0)
        assert lost.value.is_unknown
        assert lost.value.idempotency_key == sent
        keys.append(sent)
    assert keys[2] == "mine"
    assert len(set(keys)) == 3
    assert min(len(key) for key in keys[:2]) >= 32


def test_what_was_refused_or_never_sent_is_not_called_unknown(shell: Shell) -> None:
    for arguments in (("0",), ("1000000",)):
        done = shell("pay", *arguments, session_token=new_session(shell)["session_token"])
        assert done.returncode in (1, 6)
        assert "--key" not in done.stderr
    done = shell("pay", "1", url="http://127.0.0.1:1", session_token="zai_x")
    assert "--key" not in one_line(done, 1)


def test_another_request_whose_answer_is_lost_may_have_been_done() -> None:
    answer = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"
    with Losing(answer) as between:
        done = called("capture", "pay_1", "3", url=between.url, api_key="zfi_x")
    said = f"http_error: {between.url}: status 504: it may have been done"
    assert one_line(done, 1) == said


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = called("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tallystick {project['version']}\n"


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    server = Serving(tmp_path)
    assert server.first_key is not None
    known = {"url": server.url, "api_key": server.first_key}
    for noun in ("sessions", "payments"):
        done = called(noun, "list", **known)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"no {noun}\n", "")
        assert called(noun, "list", "--json", **known).stdout == "[]\n"
    assert server.stop() == (0, "")


@pytest.mark.parametrize("command", ALL, ids=lambda words: " ".join(words) or "tallystick")
def test_help_fits_a_terminal_and_cuts_nothing_off(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = called(*command, "--help").stdout
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "…" not in text
    assert "..." not in text.replace("[OPTIONS] COMMAND [ARGS]...", "")
    node: Any = typer.main.get_command(app)
    for word in command:
        node = node.commands[word]
    words = " ".join(text.split())
    for parameter in node.params:
        assert " ".join((parameter.help or "undocumented").split()) in words
        assert parameter.opts[0] in words
    for name, below in getattr(node, "commands", {}).items():
        assert f"{name} {below.help.splitlines()[0]}" in words


def test_a_process_on_a_terminal_says_the_same() -> None:
    status, seen = on_a_terminal([COMMAND, "sessions", "create", "--help"], 80, environment())
    assert status == 0
    assert max(len(line) for line in seen.splitlines()) <= 80
    assert "--max-per-transaction <str>" in seen
    assert "--require-approval-above <str>" in seen
