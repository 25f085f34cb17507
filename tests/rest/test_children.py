"""Delegation over HTTP: who may, what is inherited, and how more than the parent has is refused."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.rest.served import NO_LIMITS, SESSIONS, Served, refused

PARENT: dict[str, Any] = {
    "limits": {
        "max_per_transaction": 10,
        "max_per_day": 20,
        "max_per_week": 30,
        "max_per_month": 40,
        "require_approval_above": 5,
    },
    "allowed_merchants": ["books", "data"],
    "allowed_tokens": ["USDC"],
    "permissions": ["pay"],
    "conditions": ["at most 3 payments per hour"],
    "duration_hours": 2,
}


def child(api: Served, parent: dict[str, Any], /, *, key: str | None = None, **fields: Any) -> Any:
    """Ask for a child with the parent's own token: as much as it has, for half of the time."""
    chain = [] if parent["allowed_chains"] is None else parent["allowed_chains"]
    body = {
        "agent_id": parent["agent_id"],
        "limits": parent["limits"],
        "allowed_merchants": parent["allowed_merchants"],
        "allowed_tokens": parent["allowed_tokens"],
        "permissions": parent["permissions"],
        "conditions": parent["conditions"],
        "duration_hours": 1,
        **({"allowed_chains": chain} if chain else {}),
        **fields,
    }
    path = f"{SESSIONS}/{parent['id']}/children"
    if key is not None:
        return api.post(path, body, key=key)
    return api.call("POST", path, body, token=parent["session_token"])


@pytest.mark.parametrize("hours", [2, 30])
def test_without_a_duration_it_ends_with_its_parent_or_after_a_day(api: Served, hours: int) -> None:
    parent = api.session(**{**PARENT, "duration_hours": hours})
    path = f"{SESSIONS}/{parent['id']}/children"
    body = {"agent_id": parent["agent_id"], **PARENT}
    del body["duration_hours"]
    for sent in (body, {**body, "duration_hours": None}):
        made = api.call("POST", path, sent, token=parent["session_token"]).json()
        begins, ends = (datetime.fromisoformat(made[at]) for at in ("created_at", "expires_at"))
        if hours < 24:
            assert made["expires_at"] == parent["expires_at"]
        else:
            assert timedelta(days=1) <= ends - begins < timedelta(days=1, seconds=1)


def test_the_holder_of_a_token_delegates_and_the_child_pays(api: Served) -> None:
    parent = api.session(**PARENT)
    answer = child(api, parent)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["parent_id"], made["consent"], made["status"]) == (
        parent["id"],
        "delegated",
        "active",
    )
    assert (made["user_wallet"], parent["parent_id"]) == (parent["user_wallet"], None)
    assert made["session_token"] not in (parent["session_token"], None)
    assert api.pay(made["session_token"], 5).status_code == 201
    shown = api.get(f"{SESSIONS}/{made['id']}").json()
    assert shown["parent_id"] == parent["id"]
    assert "session_token" not in shown
    assert child(api, parent | {"id": "self"}).json()["parent_id"] == parent["id"]


def test_an_operator_may_and_its_session_token_as_bearer_too(api: Served) -> None:
    parent = api.session(**PARENT)
    for key in (api.key, parent["session_token"]):
        assert child(api, parent, key=key).status_code == 201


def test_nobody_else_may(api: Served) -> None:
    parent, other = api.session(**PARENT), api.session(**PARENT)
    own = child(api, parent).json()
    for stranger in (other, own):  # a child is not its parent, either
        answer = api.call(
            "POST",
            f"{SESSIONS}/{parent['id']}/children",
            {"agent_id": "bot"},
            token=stranger["session_token"],
        )
        refused(answer, 404, "session_not_found")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(
            ({"limits": PARENT["limits"] | {name: value}}, f"limits.{name}")
            for name, above in PARENT["limits"].items()
            for value in (above + 0.000001, None)
        ),
        ({"limits": {}}, "limits.max_per_transaction"),  # the defaults of any new session
        ({"allowed_merchants": ["books", "casino"]}, "allowed_merchants"),
        ({"allowed_merchants": None}, "allowed_merchants"),
        ({"allowed_tokens": None}, "allowed_tokens"),
        ({"permissions": ["pay", "trade"]}, "permissions"),
        ({"conditions": []}, "conditions"),
        ({"conditions": ["at most 4 payments per hour"]}, "conditions"),
        ({"duration_hours": 3}, "duration_hours"),
        ({"agent_id": "nobody-registered-it"}, "agent_id"),
        ({"agent_id": "workspace"}, "agent_id"),
        ({"agent_id": "registered"}, "agent_id"),
        ({"user_wallet": "another"}, "user_wallet"),
        ({"parent": "0x" + "11" * 32}, "parent"),
        ({"parent_id": "sess_x"}, "parent_id"),
        ({"await_consent": True}, "user_wallet"),  # it is no EVM wallet
    ],
)
def test_more_than_the_parent_has_is_refused_by_the_name_of_the_field(
    api: Served, fields: dict[str, Any], field: str
) -> None:
    parent = api.session(**PARENT)
    api.session(agent_id="registered")
    before = api.records()
    refused(child(api, parent, **fields), 422, "invalid_parameter", field)
    assert api.records() == before


def test_a_child_of_a_session_on_the_chain_is_there_too(api: Served) -> None:
    parent = api.session(mint_pkp=True, limits=NO_LIMITS)
    made = child(api, parent).json()
    assert (made["mint_pkp"], made["status"]) == (True, "active")
    assert made["pkp_address"] != parent["pkp_address"]
    refused(child(api, parent, mint_pkp=False), 422, "invalid_parameter", "mint_pkp")
    assert child(api, api.session(), mint_pkp=True).json()["mint_pkp"] is True


def test_the_fifth_in_a_line_is_refused(api: Served) -> None:
    line = [api.session(**PARENT, type="app")]
    for minutes in (60, 30, 15):
        line.append(child(api, line[-1], duration_hours=minutes / 60).json())
    refused(child(api, line[-1], duration_hours=0.1), 409, "delegation_too_deep")


def test_a_session_that_is_over_delegates_nothing_and_its_children_are_over(api: Served) -> None:
    parent = api.session(**PARENT)
    made = child(api, parent).json()
    assert api.post(f"{SESSIONS}/{parent['id']}/revoke").json() == {"success": True}
    refused(child(api, parent), 409, "parent_not_active")
    assert api.pay(made["session_token"], 1).json()["code"] == "SESSION_REVOKED"
    shown = api.get(f"{SESSIONS}/{made['id']}").json()
    assert (shown["status"], shown["is_active"]) == ("revoked", False)
    refused(child(api, made), 409, "parent_not_active")
