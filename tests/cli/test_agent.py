"""Sessions, keys and payments in two steps from the command line, against a server in this
process."""

import inspect
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from tallystick.cli import app
from tallystick.cli.completion import VARIABLE
from tests.cli.processes import ANSI, COMMAND, Done, called, environment, one_line
from tests.cli.terminal import on_a_terminal
from tests.docs.make_references import DOCS, leaves
from tests.rest.served import Served

_tenants = itertools.count(1)


class Desk:
    """An operator of a workspace."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def __call__(self, *arguments: str, **how: Any) -> Done:
        return called(*arguments, **({"url": self.served.url, "api_key": self.served.key} | how))

    def told(self, *arguments: str, **how: Any) -> Any:
        """What a command answers as JSON."""
        done = self(*arguments, "--json", **how)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def said(self, *arguments: str, **how: Any) -> str:
        """What it says to people."""
        done = self(*arguments, **how)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("desk") / "data") as opened:
        yield opened


@pytest.fixture
def desk(served: Served) -> Desk:
    return Desk(served.tenant(f"tenant-{next(_tenants)}"))


def test_sessions_are_paused_resumed_and_listed_by_what_they_are(desk: Desk) -> None:
    one = desk.told("agent", "sessions", "create", "--agent-id", "ann", "--wallet", "w")["id"]
    two = desk.told(
        *("sessions", "create", "--agent-id", "bob", "--wallet", "w", "--label", "daily")
    )["id"]
    assert desk.said("sessions", "pause", one) == f"{one} is paused\n"
    assert "○ PAUSED" in desk.said("agent", "sessions", "list", "--agent-id", "ann")
    assert [each["id"] for each in desk.told("sessions", "list", "--status", "active")] == [two]
    assert [each["id"] for each in desk.told("sessions", "list", "--label", "daily")] == [two]
    assert desk.told("sessions", "resume", one)["status"] == "active"
    assert desk.told("sessions", "revoke", one, "-y") == {"id": one, "status": "revoked"}
    assert one_line(desk("sessions", "resume", one), 1).startswith("session_not_paused: ")
    assert one_line(desk("sessions", "list", "--type", "robot"), 2).startswith("usage: ")


def test_many_are_revoked_once_they_were_shown_and_that_was_wanted(desk: Desk) -> None:
    made = [
        desk.told("sessions", "create", "--agent-id", "bot", "--wallet", "w", "--label", label)
        for label in ("daily", "daily", "weekly")
    ]
    shown = desk.said("sessions", "revoke-many", "--label", "daily", "--preview")
    assert shown.endswith("2 found, 0 revoked\n")
    assert (made[0]["id"] in shown, made[2]["id"] in shown) == (True, False)
    done = desk("sessions", "revoke-many", "--label", "daily", given="n\n")
    assert (done.returncode, done.stderr) == (1, "aborted: nothing was done\n")
    assert "Revoke 2 sessions and all beneath? This cannot be undone." in done.stdout
    assert desk("sessions", "revoke-many", "--label", "none").stdout == "0 found, 0 revoked\n"
    assert len(desk.told("sessions", "list", "--status", "active")) == 3
    revoked = desk.told("sessions", "revoke-many", "--label", "daily", "--yes")
    assert (revoked["count"], revoked["revoked"]) == (2, 2)
    assert [each["id"] for each in desk.told("sessions", "list", "--status", "active")] == [
        made[2]["id"]
    ]


def test_all_are_revoked_only_by_that_word(desk: Desk) -> None:
    for agent in ("ann", "bob"):
        desk.told("sessions", "create", "--agent-id", agent, "--wallet", "w")
    for arguments in (
        *(("--yes",), ("--preview",), ("--label", ""), ("--search", "", "-y")),
        *(("--all", "--agent-id", "ann", "-y"), ("--all", "--status", "active", "--preview")),
    ):
        line = one_line(desk("sessions", "revoke-many", *arguments), 2)
        assert line.startswith("invalid_parameter: --all: ")
    assert desk.said("sessions", "revoke-many", "--all", "--preview").endswith(
        "2 found, 0 revoked\n"
    )
    assert len(desk.told("sessions", "list", "--status", "active")) == 2
    assert desk.told("sessions", "revoke-many", "--all", "--yes")["revoked"] == 2


def test_what_is_on_the_command_line_wins_over_the_environment(desk: Desk) -> None:
    made = [
        desk.told("sessions", "create", "--agent-id", agent, "--wallet", "w")
        for agent in ("ann", "bob")
    ]
    ids, tokens = ({each[name] for each in made} for name in ("id", "session_token"))
    token, key = made[0]["session_token"], desk.served.key
    written = {"token": ("--session-token", token), "key": ("--api-key", key)}
    for words, variables, seen in (
        (written["token"], {"api_key": key}, {made[0]["id"]}),
        (written["token"], {"api_key": "zfi_test_nobodys"}, {made[0]["id"]}),
        (written["key"], {"api_key": "", "session_token": token}, ids),
        (written["key"], {"api_key": "zfi_test_nobodys", "session_token": token}, ids),
        ((*written["token"], *written["key"]), {"api_key": ""}, ids),
        ((), {"session_token": token}, ids),
    ):
        assert {each["id"] for each in desk.told("sessions", "list", *words, **variables)} == seen
    for wrong in ("zai_session_nobodys", ""):
        line = one_line(desk("status", "pay_1", "--session-token", wrong), 1)
        assert line.startswith("invalid_session_token: ")
    create = ("sessions", "create", "--agent-id", "ann", "--wallet", "w")
    line = one_line(desk(*create, "--session-token", token), 2)
    assert line.startswith("invalid_parameter: --session-token: is of use with --parent; ")
    child = desk.told(*create, "--parent", made[0]["id"], "--session-token", token)
    assert child["parent_id"] == made[0]["id"]
    assert child["session_token"] not in tokens


def test_keys_of_agents(desk: Desk) -> None:
    assert desk.said("agent", "keys", "list") == "no keys yet\n"
    arguments = ("--name", "crawler", "--agent-id", "ann", "--scopes", "read_only, full")
    said = desk.said("agent", "keys", "create", *arguments, "--rate-limit", "7")
    match = re.fullmatch(r"id   (ak_\w+)\nkey  (zai_test_\w+)\n", said)
    assert match is not None
    key_id, secret = match.groups()
    desk.told("agent", "keys", "create", "--name", "other", "--agent-id", "bob")
    listed = desk.said("agent", "keys", "list", "--agent-id", "ann")
    assert re.search(
        rf"● ACTIVE +{key_id} +{secret[:12]}… +crawler +ann +read_only full +7", listed
    )
    assert (secret in listed, "bob" in listed) == (False, False)
    assert desk("agent", "keys", "revoke", key_id, given="\n").returncode == 1
    assert desk.said("agent", "keys", "revoke", key_id, "--yes") == f"{key_id} is revoked\n"
    assert "○ REVOKED" in desk.said("agent", "keys", "list", "--agent-id", "ann")
    assert one_line(desk("agent", "keys", "revoke", "ak_x", "-y"), 1).startswith(
        "agent_key_not_found: "
    )


def test_keys_of_operators(desk: Desk, served: Served) -> None:
    workspace = desk.told("keys", "list")[0]["workspace_id"]
    arguments = ("keys", "create", "--name", "Ada", "--mode", "live", "--workspace", workspace)
    assert one_line(desk(*arguments), 1).startswith("admin_key_required: ")
    said = desk.said(*arguments, api_key=served.key)
    match = re.fullmatch(r"id   (key_\w+)\nkey  (zfi_live_\w+)\n", said)
    assert match is not None
    key_id, secret = match.groups()
    assert re.search(rf"● ACTIVE +{key_id} +zfi_live_\w+… +Ada", desk.said("keys", "list"))
    rotated = desk.told("keys", "rotate", key_id, "--yes", api_key=secret)
    assert one_line(desk("keys", "list", api_key=secret), 1).startswith("invalid_api_key: ")
    assert desk.said("keys", "revoke", rotated["id"], "--yes", api_key=served.key) == (
        f"{rotated['id']} is revoked\n"
    )
    assert [each["is_active"] for each in desk.told("keys", "list")] == [True, False, False]


def test_the_status_of_a_payment(desk: Desk) -> None:
    token = desk.told("sessions", "create", "--agent-id", "a", "--wallet", "w")["session_token"]
    held = desk.told("pay", "12", "--hold", session_token=token)
    assert desk.told("status", held["id"])["state"] == "held"
    assert desk.said("status", held["id"]) == desk.said("payments", "get", held["id"])


def test_who_is_at_a_terminal_is_asked_for_what_is_left_out(desk: Desk) -> None:
    done = desk("sessions", "create", "--json", typed="ann\n0x" + "1" * 40 + "\n")
    assert done.returncode == 0
    assert done.stderr == "Agent:The owner's wallet:"
    assert json.loads(done.stdout)["agent_id"] == "ann"
    line = one_line(desk("sessions", "create", "--agent-id", "ann"), 2)
    assert line == "invalid_parameter: --wallet: is needed"
    done = desk("agent", "keys", "create", typed="")
    assert done.returncode == 1
    assert "aborted: nothing was done" in done.stderr


def test_the_documented_commands_ask_and_no_other() -> None:
    asking = {
        words
        for words, command in leaves(typer.main.get_command(app))
        if "given_or_asked" in inspect.unwrap(command.callback).__code__.co_names
    }
    [text] = re.findall(
        r"\*\*At a terminal\*\*(.*?) ask for", (DOCS / "cli.md").read_text(), re.DOTALL
    )
    assert {tuple(name.split()) for name in re.findall(r"`([a-z ]+)`", text)} == asking
    for words in (("pay",), ("execute",), ("capture",), ("webhooks", "create")):
        assert one_line(called(*words, typed="12\n"), 2).startswith("usage: Missing argument")


def test_help_says_whose_key_or_token_it_is() -> None:
    assert "--api-key" not in called("intents", "confirm", "--help").stdout
    assert "The admin's key." in called("keys", "create", "--help").stdout


def test_intents_are_confirmed_captured_and_given_up(desk: Desk) -> None:
    assert desk.said("intents", "list") == "no intents\n"
    session = desk.told("sessions", "create", "--agent-id", "ann", "--wallet", "w")
    token = session["session_token"]
    arguments = (
        *("intents", "create", "--amount", "12.50", "--description", "Paper"),
        *("--capture", "manual", "--agent-id", "ann", "--expires-in", "60", "--key", "mine"),
    )
    made = desk.told(*arguments)
    assert (made["agent_id"], made["description"]) == ("ann", "Paper")
    assert desk.told(*arguments) == made
    assert re.search(
        r"\nclient secret \(shown once\): pi_\w+_secret_\w{64}\n$",
        desk.said("intents", "create", "--amount", "2", "--currency", "USD"),
    )
    said = desk.said("intents", "get", made["id"])
    assert re.search(r"status +requires_payment *\namount +\$12.50 USD *\n", said)
    confirming = ("intents", "confirm", made["id"], "--wallet", "w")
    wrong = desk(*confirming, "--client-secret", "x", session_token=token)
    assert one_line(wrong, 1).startswith("invalid_client_secret: ")
    secret = {"client_secret": made["client_secret"]}
    assert one_line(desk(*confirming, **secret), 1).startswith("invalid_session_token: no ")
    confirmed = desk.told(*confirming, **secret, session_token=token, api_key="zfi_test_nobodys")
    assert confirmed["status"] == "processing"
    assert confirmed["payment_id"] in desk.said("intents", "list", session_token=token, api_key="")
    assert desk.told("intents", "capture", made["id"], "10")["status"] == "succeeded"
    assert one_line(desk("intents", "cancel", made["id"]), 1).startswith("intent_succeeded: ")
    listed = desk.said("intents", "list")
    assert re.search(
        rf"SUCCEEDED +{made['id']} +\$12.50 +manual +{confirmed['payment_id']}", listed
    )
    other = desk.told("intents", "create", "--amount", "1")["id"]
    assert desk.told("intents", "cancel", other)["status"] == "canceled"
    assert [each["id"] for each in desk.told("intents", "list", "--status", "canceled")] == [other]


def test_figures_are_of_the_days_and_the_agent_that_are_named(desk: Desk) -> None:
    for agent in ("ann", "bob"):
        session = desk.told("sessions", "create", "--agent-id", agent, "--wallet", "w")
        desk("pay", "12.50", session_token=session["session_token"])
    figures = desk.said("agent", "analytics", "--days", "2", "--agent-id", "ann")
    assert re.search(r"payments +1 *\nvolume +\$12.50 *\n", figures)
    assert re.search(r"success rate +100.0% *\n", figures)
    assert figures.count("Z") == 0
    assert len(re.findall(r"^20\d\d-\d\d-\d\d +1 +\$12.50 *$", figures, re.MULTILINE)) == 1
    found = desk.told("agent", "analytics", "--days", "2")
    assert (found["total_payments"], len(found["payments_by_day"])) == (2, 2)
    assert one_line(desk("agent", "analytics", "--days", "91"), 1).startswith("invalid_parameter: ")


def test_payments_are_found_by_status_and_day(desk: Desk) -> None:
    session = desk.told("sessions", "create", "--agent-id", "ann", "--wallet", "w")
    token = session["session_token"]
    held, paid = (
        desk.told("pay", "1", *more, session_token=token)["id"] for more in (("--hold",), ())
    )
    day = session["created_at"][:10]
    for query, found in (
        (("--status", "pending"), [held]),
        (("--status", "confirmed", "--from", day), [paid]),
        (("--to", "2026-01-01"), []),
    ):
        assert [each["id"] for each in desk.told("payments", "list", *query)] == found
    wrong = desk("payments", "list", "--from", "yesterday")
    assert one_line(wrong, 1).startswith("invalid_parameter: --from: ")


def test_what_is_made_with_a_key_is_made_once(desk: Desk, served: Served) -> None:
    for arguments, secret in (
        (("sessions", "create", "--agent-id", "ann", "--wallet", "w"), "session_token"),
        (("agent", "keys", "create", "--name", "crawler", "--agent-id", "ann"), "full_key"),
        (("webhooks", "create", "https://hooks.test/"), "secret"),
    ):
        key = ("--key", arguments[0])
        assert desk.told(*arguments, *key)[secret] == desk.told(*arguments, *key)[secret]
    other = desk("sessions", "create", "--agent-id", "bob", "--wallet", "w", "--key", "sessions")
    assert one_line(other, 1).startswith("idempotency_key_reused: ")
    made = ("keys", "create", "--name", "Ada", "--key", "ada")
    assert desk.told(*made, api_key=served.key) == desk.told(*made, api_key=served.key)


def test_a_session_token_shows_its_own(desk: Desk) -> None:
    session = desk.told("sessions", "create", "--agent-id", "ann", "--wallet", "w")
    own = {"api_key": "", "session_token": session["session_token"]}
    assert desk.told("sessions", "get", "self", **own)["id"] == session["id"]
    assert [each["id"] for each in desk.told("sessions", "list", **own)] == [session["id"]]


def test_a_shell_completes_what_it_knows() -> None:
    script = called("completion", "bash").stdout
    assert f"{VARIABLE}=complete_bash" in script
    asked = {VARIABLE: "complete_bash", "COMP_WORDS": "tallystick agent ", "COMP_CWORD": "2"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.cli.processes.environment", lambda: asked)
        done = called()
    assert sorted(done.stdout.split()) == ["analytics", "keys", "sessions"]
    assert one_line(called("completion", "tcsh"), 2).startswith("usage: ")


def test_no_color_is_heeded() -> None:
    for more, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        status, seen = on_a_terminal([COMMAND, "keys", "list"], 100, environment() | more)
        assert (status, "\x1b[1;31m" in seen) == (1, colored)
        assert ANSI.sub("", seen).startswith("invalid_api_key: ")
