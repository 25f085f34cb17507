"""Budgets over HTTP: set, shown, lifted, each change on the record, and nothing for sessions."""

from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from engine.audit.record import decode_record
from engine.db import tables
from tests.ledger.oracle import alter
from tests.rest.hostile import NOT_AMOUNTS
from tests.rest.served import SESSIONS, Served, refused

WORKSPACE = "/api/v1/budgets/workspace"
NOTHING = {
    "max_payments_per_hour": None,
    "max_payments_per_day": None,
    "max_per_day": None,
    "max_per_week": None,
    "max_per_month": None,
    "max_lifetime": None,
}
ALL = {
    "max_payments_per_hour": 7,
    "max_payments_per_day": 0,
    "max_per_day": 0,
    "max_per_week": 12.5,
    "max_per_month": 999_999_999.999999,
    "max_lifetime": 1_000,
}


def of(agent_id: str) -> str:
    return f"/api/v1/agents/{quote(agent_id, safe='')}/budget"


def put(api: Served, path: str, body: Any, **how: Any) -> Any:
    return api.call("PUT", path, body, **({"key": api.key} | how))


def delete(api: Served, path: str) -> Any:
    return api.call("DELETE", path, key=api.key)


def changes(api: Served) -> list[dict[str, Any]]:
    """The records of budgets in the workspace's stream."""
    rows = tables.table(tables.Record)
    query = sa.select(rows.c.body).where(rows.c.stream == api.workspace_id).order_by(rows.c.seq)
    with api.world.engine.database.reading() as connection:
        records = [decode_record(raw) for raw in connection.execute(query).scalars()]
    return [{"kind": r.kind, **r.body} for r in records if r.kind.startswith("budget.")]


@pytest.mark.parametrize(
    "agent", [None, "shopper", "workspace", "a/b", "agent:x", "100%?#&", "x/budget", ".../.."]
)
def test_a_budget_is_set_shown_replaced_and_lifted(tenant: Served, agent: str | None) -> None:
    api, path = tenant, WORKSPACE if agent is None else of(agent)
    name = "workspace" if agent is None else f"agent:{agent}"
    if agent is not None:
        api.post("/api/v1/agents", {"agent_id": agent})
    refused(api.get(path), 404, "budget_not_found")
    answer = put(api, path, ALL)
    assert answer.status_code == 200, answer.text
    budget = answer.json()
    assert (budget["id"], budget["agent_id"], budget["version"]) == (name, agent, 1)
    assert budget["limits"] == ALL
    assert api.get(path).json() == budget == put(api, path, ALL).json()
    assert api.get("/api/v1/budgets").json() == [budget]
    replaced = put(api, path, {"max_per_day": "3.50"}).json()
    assert (replaced["limits"], replaced["version"]) == (NOTHING | {"max_per_day": 3.5}, 2)
    assert delete(api, path).json() == {"success": True}
    for answer in (api.get(path), delete(api, path)):
        refused(answer, 404, "budget_not_found")
    assert api.get("/api/v1/budgets").json() == []
    assert put(api, path, {"max_per_day": 1}).json()["version"] == 4
    told = changes(api)
    assert [(c["kind"], c["budget"], c["version"]) for c in told] == [
        ("budget.set", name, 1),
        ("budget.set", name, 2),
        ("budget.cleared", name, 3),
        ("budget.set", name, 4),
    ]
    assert told[1]["limits"]["per_day"] == 3_500_000
    assert {change["by"][:4] for change in told} == {"key_"}


def test_what_is_used_is_told_beside_the_limits(tenant: Served) -> None:
    unused = {name.removeprefix("max_"): None for name in NOTHING}
    before = tenant.session()["session_token"]
    tenant.hold(before, 2.5)
    limits = {"max_per_day": 100, "max_lifetime": 50, "max_payments_per_hour": 9}
    budget = put(tenant, WORKSPACE, limits).json()
    assert budget["used"] == unused | {"per_day": 2.5, "lifetime": 2.5, "payments_per_hour": 1}
    tenant.hold(before, "0.000001")
    assert tenant.get(WORKSPACE).json()["used"]["per_day"] == 2.500001
    put(tenant, of("bot"), {"max_payments_per_day": 1})
    told = {each["id"]: each["used"] for each in tenant.get("/api/v1/budgets").json()}
    assert told["agent:bot"] == unused | {"payments_per_day": 2}, "more than it may by now"
    assert told["workspace"]["payments_per_hour"] == 2


def test_limits_are_told_when_nobody_can_say_what_is_used(
    own_api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, ledger = own_api, own_api.world.engine.ledger
    put(api, WORKSPACE, {"max_per_day": 5})
    before = ledger.budgets_used(api.workspace_id)
    monkeypatch.setattr(ledger._writer, "fault", "the disk is gone")
    assert api.get(WORKSPACE).json()["used"] is None
    assert api.get(WORKSPACE).json()["limits"]["max_per_day"] == 5
    monkeypatch.undo()
    put(api, WORKSPACE, {"max_per_day": 6})
    monkeypatch.setattr(ledger, "budgets_used", lambda *_: before)
    assert api.get(WORKSPACE).json()["used"] is None, "it is of other limits"


def test_a_budget_is_told_whatever_became_of_others(own_api: Served) -> None:
    put(own_api, WORKSPACE, {"max_per_day": 5})
    own_api.session()
    put(own_api, of("bot"), {"max_per_day": 5})
    alter(own_api.world.store, "UPDATE budgets SET limits_json = '{' WHERE id = 'agent:bot'")
    assert put(own_api, WORKSPACE, {"max_per_day": 6}).json()["used"]["per_day"] == 0
    assert own_api.get(WORKSPACE).json()["limits"]["max_per_day"] == 6


def test_the_agent_called_workspace_is_not_the_workspace(tenant: Served) -> None:
    tenant.post("/api/v1/agents", {"agent_id": "workspace"})
    put(tenant, of("workspace"), {"max_per_day": 5})
    refused(tenant.get(WORKSPACE), 404, "budget_not_found")
    refused(delete(tenant, WORKSPACE), 404, "budget_not_found")
    assert tenant.get(of("workspace")).json()["id"] == "agent:workspace"


def test_only_registered_agents_have_budgets(api: Served) -> None:
    before = api.records()
    refused(put(api, of("nobody"), {"max_per_day": 5}), 404, "agent_not_found")
    for answer in (api.get(of("nobody")), delete(api, of("nobody"))):
        refused(answer, 404, "budget_not_found")
    assert api.records() == before
    api.session(agent_id="made-with-a-session")  # which only operators create
    assert put(api, of("made-with-a-session"), {"max_per_day": 5}).status_code == 200


def test_another_workspace_has_its_own(api: Served, tenant: Served) -> None:
    put(api, WORKSPACE, {"max_per_day": 5})
    refused(tenant.get(WORKSPACE), 404, "budget_not_found")
    assert tenant.get("/api/v1/budgets").json() == []
    assert put(tenant, WORKSPACE, {"max_per_day": 6}).json()["version"] == 1
    assert api.get(WORKSPACE).json()["limits"]["max_per_day"] == 5


@pytest.mark.parametrize("path", [WORKSPACE, of("bot"), "/api/v1/budgets"])
def test_a_session_token_is_no_key_to_budgets(api: Served, path: str) -> None:
    token = api.session()["session_token"]
    put(api, WORKSPACE, ALL)
    before = api.records()
    for how in ({"token": token}, {"key": token}, {"key": token, "token": token}):
        asked = [api.call("GET", path, **how)]
        if path != "/api/v1/budgets":
            asked.append(api.call("PUT", path, {"max_per_day": 10**6}, **how))
            asked.append(api.call("DELETE", path, **how))
        assert [answer.status_code for answer in asked] == [401] * len(asked)
    assert api.records() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        (NOTHING, "body"),
        ({"max_per_day": -1}, "max_per_day"),
        ({"max_lifetime": 10**9}, "max_lifetime"),
        ({"max_payments_per_hour": -1}, "max_payments_per_hour"),
        ({"max_payments_per_hour": 1.5}, "max_payments_per_hour"),
        ({"max_payments_per_hour": True}, "max_payments_per_hour"),
        ({"max_payments_per_hour": "5"}, "max_payments_per_hour"),
        ({"max_payments_per_day": 10**9}, "max_payments_per_day"),
        ({"per_day": 5}, "per_day"),
        ({"max_per_day": 5, "version": 1}, "version"),
        ({"max_per_day": 5, "agent_id": "bot"}, "agent_id"),
        (["max_per_day"], "body"),
    ],
)
def test_what_is_no_budget_is_refused_by_name(api: Served, body: Any, field: str) -> None:
    before = api.records()
    refused(put(api, WORKSPACE, body), 422, "invalid_parameter", field)
    assert api.records() == before


@pytest.mark.parametrize("spelling", NOT_AMOUNTS)
def test_amounts_have_the_spellings_of_all_amounts(api: Served, spelling: str) -> None:
    raw = f'{{"max_per_week":{NOT_AMOUNTS[spelling]}}}'
    answer = api.call("PUT", WORKSPACE, raw=raw, key=api.key)
    refused(answer, 422, "invalid_parameter", "max_per_week")


def test_a_child_session_registers_no_agent(api: Served) -> None:
    parent = api.session()
    body = {"agent_id": "made-up", "duration_hours": 1}
    path = f"{SESSIONS}/{parent['id']}/children"
    answer = api.call("POST", path, body, token=parent["session_token"])
    refused(answer, 422, "invalid_parameter", "agent_id")
    refused(put(api, of("made-up"), {"max_per_day": 5}), 404, "agent_not_found")
