"""What is wrong is told by the name that was typed, not by that of the request's field."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from api.rest.intent_bodies import ConfirmIntent, CreateIntent, IntentsQuery
from api.rest.queries import AgentKeysQuery, ApprovalsQuery, PaymentsQuery, SessionsQuery
from api.rest.revocations import RevokeMany, SessionsFilter
from api.rest.schemas import (
    Capture,
    CreateAgentKey,
    CreateApiKey,
    CreatePayment,
    CreateSession,
    Deny,
    Execute,
    LimitsBody,
    Restrict,
    SetBudget,
)
from api.rest.webhook_bodies import CreateWebhook, ReplayWebhook, TryWebhook
from engine.settings import Settings
from tallystick.cli import app
from tallystick.cli.options import PARAMETERS, SETTINGS, name_of
from tests.cli.conftest import Shell
from tests.cli.processes import called, one_line

GROUP: Any = typer.main.get_command(app)
WALLET = "0x" + "1" * 40
CREATE = ("sessions", "create", "--agent-id", "a", "--wallet", WALLET)
KEY_FOR = ("agent", "keys", "create", "--name", "n", "--agent-id", "a")

WRONG: Mapping[str, tuple[tuple[str, ...], str]] = {
    "wallet": ((*CREATE[:4], "--wallet", "0x 12"), "--wallet"),
    "agent": (("sessions", "create", "--agent-id", "a b", "--wallet", WALLET), "--agent-id"),
    "duration": ((*CREATE, "--duration", "1h"), "--duration"),
    "limit": ((*CREATE, "--max-per-day", "1e3"), "--max-per-day"),
    "merchant": ((*CREATE, "--merchant", ""), "--merchant"),
    "token": ((*CREATE, "--token", "NOPE"), "--token"),
    "chain": ((*CREATE, "--chain", "x"), "--chain"),
    "condition": ((*CREATE, "--condition", "be frugal"), "--condition"),
    "the second": (
        (*CREATE, "--condition", "never merchant casino", "--condition=be frugal"),
        "--condition (number 2)",
    ),
    "approvals": ((*CREATE, "--approvals-required", "11"), "--approvals-required"),
    "label": ((*CREATE, "--label", "x" * 101), "--label"),
    "key": ((*CREATE, "--key", "x" * 1000), "--key"),
    "status": (("sessions", "list", "--status", "x"), "--status"),
    "filter": (("sessions", "revoke-many", "--chain", "x", "--preview"), "--chain"),
    "restriction": (("sessions", "restrict", "SESSION", "--restriction", "x"), "--restriction"),
    "amount": (("pay", "0.0000001"), "AMOUNT"),
    "payee": (("pay", "1", "--merchant", ""), "--merchant"),
    "account": (("execute", "1", "--session", "SESSION", "--to", "0x"), "--to"),
    "intent": (("intents", "create", "--amount", "x"), "--amount"),
    "its life": (("intents", "create", "--amount", "1", "--expires-in", "0"), "--expires-in"),
    "budget": (("budgets", "set", "--max-lifetime", "x"), "--max-lifetime"),
    "rate": ((*KEY_FOR, "--rate-limit", "0"), "--rate-limit"),
    "network": ((*KEY_FOR, "--allow-ip", "x"), "--allow-ip"),
    "scope": ((*KEY_FOR, "--scopes", "read_only,x"), "--scopes"),
    "workspace": (("keys", "create", "--name", "n", "--workspace", "x" * 65), "--workspace"),
    "from": (("payments", "list", "--from", "x"), "--from"),
    "to": (("payments", "list", "--to", "x"), "--to"),
    "of one": (("payments", "list", "--status", "x"), "--status"),
    "state": (("approvals", "list", "--state", "x"), "--state"),
    "days": (("agent", "analytics", "--days", "91"), "--days"),
    "event": (("webhooks", "create", "https://a.test", "--event", "x"), "--event"),
    "address": (("webhooks", "create", "x"), "URL"),
    "resource": (("fetch", "x"), "URL"),
    "time": (("fetch", "http://a.test", "--max-time", "0"), "--max-time"),
    "header": (("fetch", "http://a.test", "-H", "a b: c"), "--header"),
    "method": (("fetch", "http://a.test", "-X", "a b"), "--request"),
}


@pytest.mark.parametrize(("words", "name"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_has_the_name_that_was_typed(
    shell: Shell, words: tuple[str, ...], name: str
) -> None:
    session = json.loads(shell(*CREATE, "--json").stdout)
    words = tuple(session["id"] if word == "SESSION" else word for word in words)
    pays = {"session_token": session["session_token"]} if words[0] in ("pay", "fetch") else {}
    done = shell(*words, **pays)
    line = one_line(done, 2 if words[0] == "fetch" else 1)
    assert line.partition(": ")[2].startswith(f"{name}: ")


def test_other_fields_that_are_named_have_the_typed_names_too(shell: Shell) -> None:
    words = ("payments", "list", "--from", "2026-02-01", "--to", "2026-01-01")
    assert one_line(shell(*words), 1) == "invalid_parameter: --to: is before --from"


BODIES: Mapping[tuple[str, ...], tuple[type[BaseModel], ...]] = {
    ("sessions", "create"): (CreateSession, LimitsBody),
    ("sessions", "list"): (SessionsQuery,),
    ("sessions", "revoke-many"): (RevokeMany, SessionsFilter),
    ("sessions", "restrict"): (Restrict,),
    ("pay",): (CreatePayment,),
    ("execute",): (Execute,),
    ("capture",): (Capture,),
    ("intents", "create"): (CreateIntent,),
    ("intents", "confirm"): (ConfirmIntent,),
    ("intents", "list"): (IntentsQuery,),
    ("keys", "create"): (CreateApiKey,),
    ("agent", "keys", "create"): (CreateAgentKey,),
    ("agent", "keys", "list"): (AgentKeysQuery,),
    ("budgets", "set"): (SetBudget,),
    ("payments", "list"): (PaymentsQuery,),
    ("approvals", "list"): (ApprovalsQuery,),
    ("approvals", "deny"): (Deny,),
    ("webhooks", "create"): (CreateWebhook,),
    ("webhooks", "test"): (TryWebhook,),
    ("webhooks", "replay"): (ReplayWebhook,),
}
NO_FIELD = {"url", "api_key", "session_token", "as_json", "yes", "every", "lift", "key"}
NO_FIELD |= {"session_id", "payment", "intent", "approval", "webhook"}  # parts of the path
NO_FIELD |= {"parent", "agent"}


@pytest.mark.parametrize("words", BODIES, ids=" ".join)
def test_every_option_is_named_by_a_field_of_its_request(words: tuple[str, ...]) -> None:
    command = GROUP
    for word in words:
        command = command.commands[word]
    fields = {name for body in BODIES[words] for name in body.model_fields}
    fields |= {"agent_id", "owner_signature", "session_id"}
    named = {name_of(field, command, ()) for field in fields}
    for parameter in command.params:
        if parameter.name not in NO_FIELD:
            typed = parameter.opts[0]
            if parameter.param_type_name == "argument":
                typed = parameter.metavar or parameter.name.upper()
            assert typed in named


def test_the_table_has_no_more_than_commands_have() -> None:
    found = set()

    def look(group: Any) -> None:
        found.update(parameter.name for parameter in group.params)
        for command in getattr(group, "commands", {}).values():
            look(command)

    look(GROUP)
    assert {name for names in PARAMETERS.values() for name in names} <= found
    assert {name.lower() for name in SETTINGS} <= found & set(Settings.model_fields)


@pytest.mark.parametrize("command", ["serve", "facilitator"])
def test_a_setting_that_an_option_overrides_is_told_as_the_option(command: str) -> None:
    refused = "takes a number of at most 65535"
    for given in (("--port", "99999"), ("--port=99999",)):
        assert one_line(called(command, *given), 1) == f"cannot_start: --port: {refused}"
    line = one_line(called(command, port="99999"), 1)
    assert line == f"cannot_start: TALLYSTICK_PORT: {refused}"
    line = one_line(called(command, "--port", "0", prot="1"), 1)
    assert line == "cannot_start: unknown setting: TALLYSTICK_PROT (is TALLYSTICK_PORT meant?)"
