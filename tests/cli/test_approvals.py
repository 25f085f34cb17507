"""`tallystick approvals`: what waits, and what an operator makes of it."""

import json
import re
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.cli.processes import ANSI, COMMAND, environment, one_line
from tests.cli.terminal import on_a_terminal


def session(shell: Shell, *options: str) -> dict[str, Any]:
    """A session that may pay $50 alone."""
    done = shell(
        *("sessions", "create", "--agent-id", "shopper", "--wallet", "w", "--json"),
        *("--require-approval-above", "50", "--max-per-day", "200", *options),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def asked_for(shell: Shell, of: dict[str, Any], amount: str = "60") -> str:
    """Pay more than it may; the approval that the refusal names."""
    done = shell("pay", amount, "--merchant", "books", session_token=of["session_token"])
    line = one_line(done, 6)
    match = re.fullmatch(r"APPROVAL_REQUIRED: .* needs an approval: (apr_\w+) waits .*", line)
    assert match is not None, line
    return match[1]


def shown(shell: Shell, approval: str) -> dict[str, str]:
    done = shell("approvals", "show", approval)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    return {name: value.strip() for name, value in lines}


def test_a_grant_pays(shell: Shell) -> None:
    approval = asked_for(shell, session(shell))
    before = shown(shell, approval)
    assert (before["state"], before["amount"], before["grants"]) == ("waiting", "$60.00", "0 of 1")
    done = shell("approvals", "grant", approval)
    assert (done.returncode, done.stderr) == (0, "")
    match = re.fullmatch(rf"{approval} is granted: (pay_\w+)\n", done.stdout)
    assert match is not None
    after = shown(shell, approval)
    assert (after["state"], after["payment"]) == ("granted", match[1])
    paid = json.loads(shell("payments", "get", match[1], "--json").stdout)
    assert (paid["state"], paid["approval_id"]) == ("captured", approval)
    assert approval in shell("payments", "get", match[1]).stdout
    again = json.loads(shell("approvals", "grant", approval, "--json").stdout)
    assert again["payment_id"] == match[1]


def test_a_denial_keeps_its_reason(shell: Shell) -> None:
    approval = asked_for(shell, session(shell))
    done = shell("approvals", "deny", approval, "--reason", "[b]too dear[/]")
    assert (done.returncode, done.stdout) == (0, f"{approval} is denied\n")
    assert shown(shell, approval)["reason"] == "[b]too dear[/]"
    assert one_line(shell("approvals", "grant", approval), 1).startswith("approval_denied: ")


def test_one_of_two_grants_is_not_enough(shell: Shell) -> None:
    made = session(shell, "--approvals-required", "2")
    assert re.search(r"approvals required +2", shell("sessions", "get", made["id"]).stdout)
    approval = asked_for(shell, made)
    for _ in range(2):
        done = shell("approvals", "grant", approval)
        assert (done.returncode, done.stdout) == (0, f"{approval} has 1 of 2 grants\n")


def test_the_grant_of_a_revoked_key_does_not_count(shell: Shell) -> None:
    approval = asked_for(shell, session(shell, "--approvals-required", "2"))
    made = json.loads(shell("keys", "create", "--name", "lost", "--json").stdout)
    shell("approvals", "grant", approval, api_key=made["full_key"])
    assert shown(shell, approval)["grants"] == "1 of 2"
    assert shell("keys", "revoke", made["id"], "--yes").returncode == 0
    after = shown(shell, approval)
    assert after["grants"] == "0 of 2"
    assert after["granted by"].endswith(", does not count: the key is revoked")
    done = shell("approvals", "grant", approval)
    assert (done.returncode, done.stdout) == (0, f"{approval} has 1 of 2 grants\n")


def test_what_no_longer_fits_is_refused(shell: Shell) -> None:
    made = session(shell)
    approval = asked_for(shell, made)
    for _ in range(4):
        shell("pay", "50", session_token=made["session_token"])
    line = one_line(shell("approvals", "grant", approval), 6)
    assert line == f"LIMIT_EXCEEDED: {approval} is refused: nothing is paid"


def test_the_list_can_be_narrowed(shell: Shell) -> None:
    made = session(shell)
    ids = [asked_for(shell, made, str(60 + number)) for number in range(3)]
    shell("approvals", "deny", ids[1])

    def listed(*options: str) -> list[str]:
        done = shell("approvals", "list", "--json", "--session", made["id"], *options)
        assert (done.returncode, done.stderr) == (0, "")
        return [approval["id"] for approval in json.loads(done.stdout)]

    assert listed() == ids[::-1]
    assert listed("--state", "waiting", "--limit", "1") == [ids[2]]
    assert listed("--state", "denied") == [ids[1]]
    heading, *lines = shell("approvals", "list", "--session", made["id"]).stdout.splitlines()
    assert heading.split() == ["STATE", "ID", "AMOUNT", "MERCHANT", "GRANTS", "EXPIRES"]
    assert [line.split()[:2] for line in lines] == [
        ["WAITING", ids[2]],
        ["DENIED", ids[1]],
        ["WAITING", ids[0]],
    ]
    empty = shell("approvals", "list", "--session", session(shell)["id"])
    assert empty.stdout == "no approvals yet\n"


@pytest.mark.parametrize("command", [("list",), ("show",)])
def test_a_terminal_of_80_columns_cuts_nothing_off(shell: Shell, command: tuple[str]) -> None:
    approval = asked_for(shell, session(shell))
    words = [COMMAND, "approvals", *command, *([] if command == ("list",) else [approval])]
    known = environment(url=shell.server.url, api_key=shell.key)
    status, seen = on_a_terminal(words, 80, known)
    assert status == 0
    lines = [line.rstrip() for line in ANSI.sub("", seen).splitlines()]
    assert max(map(len, lines)) <= 80
    assert approval in "".join(line.strip() for line in lines)


def test_the_holder_of_the_session_may_look_and_nothing_else(shell: Shell) -> None:
    made = session(shell)
    approval, token = asked_for(shell, made), made["session_token"]
    found = shell("approvals", "show", approval, "--json", api_key="", session_token=token)
    assert json.loads(found.stdout)["state"] == "waiting"
    done = shell("approvals", "grant", approval, api_key=token)
    assert one_line(done, 1).startswith("invalid_api_key: ")


def test_what_is_not_there_is_one_line(shell: Shell) -> None:
    for command in ("show", "grant", "deny"):
        for unknown in ("apr_no", "../payments", ""):
            assert "not_found: " in one_line(shell("approvals", command, unknown), 1)
    assert "state" in one_line(shell("approvals", "list", "--state", "open"), 1)
