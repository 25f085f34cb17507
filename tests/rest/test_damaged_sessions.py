"""Rows of one session are damaged: the others are listed, and an operator can still end all."""

import sqlite3
from typing import Any

import pytest

from engine.errors import Unavailable
from tests.rest.served import SESSIONS, Served, refused

MANY = SESSIONS + "/revoke-many"
FAR_MS = 2**62
LIMITS = {"limits": {"max_per_transaction": 1, "max_per_day": 2}}
ROW_DAMAGED = {
    "no grant": "grant_json = '{}'",
    "a grant that is no text": "grant_json = x'7b7d'",
    "no list of restrictions": "restrictions_json = 'null'",
    "restrictions that are none": "restrictions_json = '[1]'",
    "restrictions above that are no text": "restrictions_above_json = x'7b7d'",
    "lowered limits that are none": "lowered_json = '{\"a\":1}'",
    "lowered limits that are no text": "lowered_json = x'7b7d'",
    "metadata that is no JSON": "metadata_json = '{secret'",
    "metadata that is no object": "metadata_json = '[1]'",
    "a hash that is text": "grant_hash = 'text'",
    "a short token id": "token_id = substr(token_id, 2)",
    "a key that is none": "public_key = x'04'",
    "a label that is no text": "label = x'00'",
    "an agent that is no text": "agent_id = x'00'",
    "an end beyond all time": f"expires_ms = {FAR_MS}",
    "an end that is no time": "expires_ms = 'abc'",
    "a beginning beyond all time": f"created_ms = {FAR_MS}",
}
"""The row holds no session any more."""
ACCOUNT_DAMAGED = {
    "another state": "UPDATE sessions SET state = 'registering' WHERE id = ?",
    "no row of a decision": "DELETE FROM decisions WHERE session_id = ?",
}
"""The row tells of a session, and nothing is decided for it."""


def damage(api: Served, statement: str, session_id: str) -> None:
    """Change the data file behind the engine's back, which then reads it again."""
    with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
        assert database.execute(statement, (session_id,)).rowcount > 0
    database.close()
    api.world.engine.writer._forget_all()


def row_damaged(api: Served, what: str, session_id: str) -> None:
    damage(api, f"UPDATE sessions SET {ROW_DAMAGED[what]} WHERE id = ?", session_id)


def state_of(api: Served, session_id: str) -> str:
    """By its row alone."""
    with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
        [(state,)] = database.execute("SELECT state FROM sessions WHERE id = ?", (session_id,))
    database.close()
    return str(state)


@pytest.mark.parametrize("what", ROW_DAMAGED)
def test_a_row_that_holds_no_session_is_always_refused_by_its_name(
    tenant: Served, what: str
) -> None:
    session_id = tenant.session()["id"]
    row_damaged(tenant, what, session_id)
    with pytest.raises(Unavailable, match=session_id) as refused:
        tenant.world.engine.sessions.get(tenant.workspace_id, session_id)
    assert refused.value.code == "session_damaged"


@pytest.mark.parametrize("what", ROW_DAMAGED)
def test_the_others_are_listed_beside_a_row_that_holds_no_session(
    tenant: Served, what: str
) -> None:
    before, damaged, after = (tenant.session()["id"] for _ in range(3))
    row_damaged(tenant, what, damaged)
    answer = tenant.get(SESSIONS)
    assert answer.status_code == 200, answer.text
    assert [each["id"] for each in answer.json()] == [after, before]
    assert answer.headers["X-Total-Count"] == "3"


@pytest.mark.parametrize("what", ACCOUNT_DAMAGED)
def test_a_session_that_nothing_is_decided_for_is_listed_with_nothing_left(
    tenant: Served, what: str
) -> None:
    first, second = (tenant.session(**LIMITS) for _ in range(2))
    assert tenant.pay(first["session_token"], 1).status_code == 201
    damage(tenant, ACCOUNT_DAMAGED[what], first["id"])
    other, found = tenant.get(SESSIONS).json()
    assert (other["id"], other["is_active"], other["remaining_today"]) == (second["id"], True, 2)
    assert (found["id"], found["limits"]["max_per_day"]) == (first["id"], 2)
    assert not found["is_active"]
    left = [found[f"remaining_{each}"] for each in ("today", "this_week", "this_month")]
    assert (left, found["remaining_by_condition"]) == ([0, 0, 0], [])


@pytest.mark.parametrize("what", ROW_DAMAGED)
def test_all_are_revoked_together_with_one_that_is_damaged(tenant: Served, what: str) -> None:
    ids = [tenant.session()["id"] for _ in range(3)]
    row_damaged(tenant, what, ids[1])
    asked: dict[str, Any] = {"filter": {}}
    shown = tenant.post(MANY, asked | {"preview": True})
    assert shown.status_code == 200, shown.text
    assert sorted(each["id"] for each in shown.json()["sessions"]) == sorted(ids)
    done = tenant.post(MANY, asked | {"selection": shown.json()["selection"]})
    assert (done.status_code, done.json().get("revoked")) == (200, 3), done.text
    assert [state_of(tenant, each) for each in ids] == ["revoked"] * 3
    assert tenant.post(MANY, asked | {"preview": True}).json()["count"] == 0


@pytest.mark.parametrize("what", ROW_DAMAGED)
def test_one_that_is_damaged_is_revoked_by_its_name(api: Served, tenant: Served, what: str) -> None:
    session_id, other = (tenant.session()["id"] for _ in range(2))
    row_damaged(tenant, what, session_id)
    refused(api.post(f"{SESSIONS}/{session_id}/revoke"), 404, "session_not_found")
    for _ in range(2):
        answer = tenant.post(f"{SESSIONS}/{session_id}/revoke")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert [state_of(tenant, each) for each in (session_id, other)] == ["revoked", "active"]
    refused(api.post(f"{SESSIONS}/{session_id}/revoke"), 404, "session_not_found")


def test_what_is_beneath_a_damaged_session_ends_with_it(tenant: Served) -> None:
    parent = tenant.session(label="above")
    body = {"agent_id": "bot"}
    child = tenant.post(f"{SESSIONS}/{parent['id']}/children", body).json()["id"]
    row_damaged(tenant, "no grant", parent["id"])
    asked: dict[str, Any] = {"filter": {"label": "above"}}
    shown = tenant.post(MANY, asked | {"preview": True}).json()
    done = tenant.post(MANY, asked | {"selection": shown["selection"]})
    assert done.json()["revoked"] == 1, done.text
    assert [state_of(tenant, each) for each in (parent["id"], child)] == ["revoked"] * 2


def test_one_whose_last_record_is_damaged_keeps_no_other_alive(tenant: Served) -> None:
    """Nothing can be written after that record, and nothing is paid from it either."""
    first, damaged, last = (tenant.session()["id"] for _ in range(3))
    damage(tenant, "UPDATE records SET body = substr(body, 2) WHERE stream = ?", damaged)
    asked: dict[str, Any] = {"filter": {}}
    shown = tenant.post(MANY, asked | {"preview": True}).json()
    done = tenant.post(MANY, asked | {"selection": shown["selection"]})
    assert (done.json()["count"], done.json()["revoked"]) == (3, 2), done.text
    states = [state_of(tenant, each) for each in (first, damaged, last)]
    assert states == ["revoked", "active", "revoked"]
