"""Whatever is typed: a documented exit status, at most one line of complaint, no traceback."""

import os
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.cli import app
from tests.cli.conftest import Shell
from tests.cli.processes import called, tallystick

STATUSES = {0, 1, 2, 4, 6}


def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group, by the words that call it."""
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


ALL = commands(typer.main.get_command(app))
# These would go on until they are stopped.
RUNNING = {("serve",), ("chain",), ("facilitator",), ("mcp",), ("webhooks", "listen")}
SIZE = int(os.environ.get("TALLYSTICK_TEST_INVOCATIONS", "300"))
"""How many are made up; the same ones each time."""


def test_no_command_is_left_out() -> None:
    names = ["serve", "chain", "deploy", "pay", "capture", "void", "anchor", "evidence", "verify"]
    names += ["explain", "backtest", "fetch", "fsck", "facilitator", "mcp", "status", "completion"]
    assert {("sessions", name) for name in ("create", "list", "get", "restrict", "revoke")} <= set(
        ALL
    )
    assert {(name,) for name in names} <= set(ALL)
    ours = {words[1:] for words in ALL if words[:1] == ("sessions",)}
    assert ours == {words[2:] for words in ALL if words[:2] == ("agent", "sessions")}
    assert {("agent", "keys", name) for name in ("create", "list", "revoke")} <= set(ALL)
    assert {("keys", name) for name in ("create", "list", "rotate", "revoke")} <= set(ALL)
    assert {("intents", name) for name in ("create", "list", "get", "confirm", "cancel")} <= set(
        ALL
    )
    assert ("agent", "analytics") in ALL
    assert {("payments", name) for name in ("list", "get")} <= set(ALL)
    assert {("approvals", name) for name in ("list", "show", "grant", "deny")} <= set(ALL)


def test_every_command_that_ends_answers_in_json_too() -> None:
    """But for the one that prints a script, and the groups."""
    found = set()

    def look(group: Any, path: tuple[str, ...]) -> None:
        for name, command in group.commands.items():
            if getattr(command, "commands", None):
                look(command, (*path, name))
            elif "--json" not in {option for each in command.params for option in each.opts}:
                found.add((*path, name))

    look(typer.main.get_command(app), ())
    assert found == {*RUNNING, ("completion",)}


@pytest.mark.parametrize("command", ALL, ids=lambda words: " ".join(words) or "tallystick")
def test_every_command_explains_itself(command: tuple[str, ...], tmp_path: Path) -> None:
    done = called(*command, "--help", cwd=tmp_path, url="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(("Usage: tallystick", *command)) in done.stdout


def test_a_process_explains_itself_too() -> None:
    done = tallystick("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "verify" in done.stdout


anything = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),  # bytes that are no text
    st.sampled_from(["", "-", "--", "0", "-1", "12.50", "none", "0x" + "1" * 40, "[/]", "\x1b[2J"]),
    st.from_regex(r"(sess|pay|apr)_[0-9a-z]{1,26}(_[0-9]+)?", fullmatch=True),
).filter(lambda text: "\x00" not in text)
option = st.sampled_from(
    [
        *("--agent-id", "--wallet", "--label", "--merchant", "--token", "--duration", "--mint-pkp"),
        *("--condition", "--restriction", "--lift", "--state", "--reason", "--approvals-required"),
        *("--max-per-day", "--require-approval-above", "--owner-key-file", "--hold", "--key"),
        *("--json", "--yes", "--url", "--api-key", "--session-token", "--rpc", "--registry"),
        *("--request", "--data", "--header", "--max-price"),
        *("--help", "--test-usdc", "--nonsense", "--policy", "--all", "--session"),
        *(
            "--name",
            "--mode",
            "--scopes",
            "--rate-limit",
            "--status",
            "--type",
            "--preview",
            "--chain",
        ),
        *("--search", "--amount", "--capture", "--client-secret", "--limit", "--offset", "--days"),
    ]
)
invocation = st.tuples(
    st.sampled_from([command for command in ALL if command not in RUNNING]),
    st.lists(st.one_of(anything, option, st.tuples(option, anything)), max_size=6),
)


@settings(
    max_examples=SIZE,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(invocation, st.booleans())
def test_anything_may_be_typed(
    shell: Shell, asked: tuple[tuple[str, ...], list[str | tuple[str, str]]], known: bool
) -> None:
    words: list[str] = list(asked[0])
    for part in asked[1]:
        words += (part,) if isinstance(part, str) else part
    if words[:1] == ["evidence"] or "--url" in words:
        words = [word for word in words if word not in ("-o", "--output", "--url")]
    key = shell.key if known else "zfi_test_wrong"
    done = shell(*words, api_key=key, session_token="zai_session_" + "0" * 64)
    assert done.returncode in STATUSES, done.stderr
    assert len(done.stderr.splitlines()) <= 1 or "Usage: " in done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode and "Usage: " not in done.stdout + done.stderr:
        assert done.stderr.split(": ")[0] not in ("", "internal_error")
