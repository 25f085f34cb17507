"""Approvals over HTTP: what waits is shown, granted or denied, and by nobody who may not."""

from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock, system_clock
from engine.ledger.approval import WAITING_MAX
from tests.ledger.approving import new_key
from tests.rest.served import APPROVALS, NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served, refused

ABOVE_50 = NO_LIMITS | {"max_per_day": 200, "require_approval_above": 50}


def ask(api: Served, session: dict[str, Any], amount: Any = 60, **how: Any) -> dict[str, Any]:
    """Ask for more than the session may pay alone; the answer."""
    answer = api.pay(session["session_token"], amount, **how)
    assert (answer.status_code, answer.json()["code"]) == (402, "APPROVAL_REQUIRED")
    body: dict[str, Any] = answer.json()
    return body


def decide(api: Served, approval: Any, what: str, body: Any = None, **how: Any) -> Any:
    path = f"{APPROVALS}/{approval}/{what}"
    return api.post(path, **how) if body is None else api.post(path, body, **how)


def shown(api: Served, approval: Any, **how: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"{APPROVALS}/{approval}", **how).json()
    return found


def test_the_denial_names_its_approval_and_the_approval_the_payment(api: Served) -> None:
    session = api.session(limits=ABOVE_50, label="groceries")
    token = session["session_token"]
    denial = ask(
        api,
        session,
        "60.5",
        description="Paper",
        metadata={"b": 1, "a": 2},
        headers={"Idempotency-Key": "k"},
    )
    approval = denial["approval_id"]
    assert api.get(f"{PAYMENTS}/{denial['id']}").json()["approval_id"] == approval
    waiting = api.get(f"{APPROVALS}/{approval}", key=token).json()
    assert waiting == shown(api, approval)
    assert (waiting["state"], waiting["grants"], waiting["approvals_required"]) == (
        "waiting",
        [],
        1,
    )
    assert (waiting["amount_usd"], waiting["merchant_id"]) == (60.5, "books")
    assert (waiting["description"], waiting["metadata"]) == ("Paper", {"a": 2, "b": 1})
    assert (waiting["capture_method"], waiting["session_label"]) == ("manual", "groceries")
    assert (waiting["denied_payment_id"], waiting["payment_id"]) == (denial["id"], None)
    granted = decide(api, approval, "grant").json()
    assert granted["state"] == "granted"
    assert granted == shown(api, approval, key=token)
    paid = api.get(f"{PAYMENTS}/{granted['payment_id']}", key=token).json()
    assert (paid["state"], paid["amount_usd"], paid["approval_id"]) == ("held", 60.5, approval)
    captured = api.call("POST", f"{PAYMENTS}/{paid['id']}/capture", token=token)
    assert captured.json()["state"] == "captured"
    again = ask(
        api,
        session,
        "60.5",
        description="Paper",
        metadata={"a": 2, "b": 1},
        headers={"Idempotency-Key": "k"},
    )
    assert again == denial, "for ever"


def test_a_smart_payment_is_spent_with_the_grant(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    body = {"amount_usd": 60, "session_token": session["session_token"]}
    denial = api.post(SMART, body).json()
    granted = decide(api, denial["approval_id"], "grant").json()
    assert granted["capture_method"] == "automatic"
    paid = api.get(f"{PAYMENTS}/{granted['payment_id']}").json()
    assert (paid["state"], paid["captured_usd"]) == ("captured", 60)


def test_metadata_in_another_order_is_the_same_request(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    one = ask(api, session, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    other = ask(api, session, metadata={"b": {"d": 3, "c": 2}, "a": 1})
    assert one["id"] != other["id"]
    assert one["approval_id"] == other["approval_id"]
    composed = ask(api, session, description="caf\u00e9")
    in_two_parts = ask(api, session, description="cafe\u0301")
    assert composed["approval_id"] != in_two_parts["approval_id"]


def test_nobody_grants_with_the_session_token(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    token, approval = session["session_token"], ask(api, session)["approval_id"]
    before = api.records()
    for what in ("grant", "deny"):
        for how in ({"key": token}, {"key": None, "token": token}, {"key": token, "token": token}):
            assert decide(api, approval, what, **how).status_code == 401
    other = api.workspace("nosy")
    refused(decide(api, approval, "grant", key=other), 404, "approval_not_found")
    refused(decide(api, approval, "deny", key=other), 404, "approval_not_found")
    assert api.get(APPROVALS, key=other).json()["data"] == []
    assert api.get(APPROVALS, key=token).status_code == 401
    assert api.records() == before + 2, "the new workspace and its key"
    assert shown(api, approval)["state"] == "waiting"


def test_a_denial_keeps_its_reason(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    approval = ask(api, session)["approval_id"]
    denied = decide(api, approval, "deny", {"reason": "too dear"}).json()
    assert (denied["state"], denied["reason"]) == ("denied", "too dear")
    assert shown(api, approval, key=session["session_token"])["reason"] == "too dear"
    refused(decide(api, approval, "grant"), 409, "approval_denied")
    assert decide(api, ask(api, session)["approval_id"], "deny").json()["reason"] is None


def test_a_session_that_requires_two_says_so(api: Served) -> None:
    session = api.session(limits=ABOVE_50, approvals_required=2)
    assert session["approvals_required"] == 2
    assert api.get(f"{SESSIONS}/{session['id']}").json()["approvals_required"] == 2
    assert api.session()["approvals_required"] == 1
    approval = ask(api, session)["approval_id"]
    first = decide(api, approval, "grant").json()
    assert (first["state"], len(first["grants"])) == ("waiting", 1)
    assert decide(api, approval, "grant").json() == first, "each key counts once"
    engine = api.world.engine
    engine.approvals.grant("default", approval, by=new_key(api.world))
    second = shown(api, approval)
    assert (second["state"], len(second["grants"])) == ("granted", 2)


@pytest.mark.parametrize("required", [0, 11, -1, 1.5, "2", True, None])
def test_a_session_requires_one_to_ten(api: Served, required: Any) -> None:
    body = {"agent_id": "bot", "user_wallet": "wallet", "approvals_required": required}
    refused(api.post(SESSIONS, body), 422, "invalid_parameter", "approvals_required")


def test_a_child_does_not_require_fewer(api: Served) -> None:
    parent = api.session(approvals_required=2)
    path, body = f"{SESSIONS}/{parent['id']}/children", {"agent_id": "bot", "duration_hours": 1}
    for sent, required in (({}, 2), ({"approvals_required": 3}, 3)):
        made = api.call("POST", path, body | sent, token=parent["session_token"])
        assert made.json()["approvals_required"] == required
    fewer = api.call("POST", path, body | {"approvals_required": 1}, token=parent["session_token"])
    refused(fewer, 422, "invalid_parameter", "approvals_required")


def test_the_list_has_pages_and_filters(api: Served) -> None:
    session, other = (api.session(limits=ABOVE_50) for _ in range(2))
    ids = [ask(api, session, 60 + n)["approval_id"] for n in range(5)]
    ask(api, other)
    decide(api, ids[1], "grant")
    decide(api, ids[3], "deny")

    def listed(query: str) -> list[str]:
        answer = api.get(f"{APPROVALS}?session_id={session['id']}{query}").json()
        return [approval["id"] for approval in answer["data"]]

    assert listed("") == ids[::-1]
    assert listed("&limit=2&page=2") == [ids[2], ids[1]]
    assert listed("&state=waiting") == [ids[4], ids[2], ids[0]]
    assert (listed("&state=granted"), listed("&state=denied")) == ([ids[1]], [ids[3]])
    assert (listed("&state=expired"), listed("&state=refused")) == ([], [])
    found = api.get(f"{APPROVALS}?session_id={session['id']}&limit=2").json()["pagination"]
    assert found == {"page": 1, "limit": 2, "total": 5, "total_pages": 3}
    refused(api.get(f"{APPROVALS}?state=open"), 422, "invalid_parameter", "state")
    refused(api.get(f"{APPROVALS}?session_id=sess_x"), 404, "session_not_found")
    assert len(api.get(APPROVALS).json()["data"]) >= 6


def test_who_asks_for_too_many_hears_it(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    ids = [ask(api, session, 51 + n)["approval_id"] for n in range(WAITING_MAX)]
    assert len(set(ids)) == WAITING_MAX
    denial = ask(api, session, 151)
    assert denial["approval_id"] is None
    assert denial["message"].endswith("100 of the session wait already, so none was asked for.")


def test_one_that_is_over_says_so_though_nobody_swept(tmp_path: Path) -> None:
    clock = ManualClock(system_clock())
    with Served(tmp_path / "data", clock=clock, approval_ttl_s=60) as api:
        session = api.session(limits=ABOVE_50)
        approval = ask(api, session)["approval_id"]
        clock.advance(59_999)
        assert shown(api, approval)["state"] == "waiting"
        clock.advance(1)
        over = shown(api, approval)
        assert (over["state"], over["ended_at"]) == ("expired", over["expires_at"])
        assert len(api.get(f"{APPROVALS}?state=expired").json()["data"]) == 1
        assert api.get(f"{APPROVALS}?state=waiting").json()["data"] == []
        refused(decide(api, approval, "grant"), 409, "approval_expired")
        refused(decide(api, approval, "deny"), 409, "approval_expired")


def test_what_no_longer_fits_is_refused_in_so_many_words(api: Served) -> None:
    session = api.session(limits=ABOVE_50)
    approval = ask(api, session)["approval_id"]
    for _ in range(4):
        api.hold(session["session_token"], 50)
    after = decide(api, approval, "grant").json()
    assert (after["state"], after["code"]) == ("refused", "LIMIT_EXCEEDED")
    assert api.get(f"{PAYMENTS}/{after['payment_id']}").json()["decision"]["rule"] == "per_day"
    changed = ask(api, api.session(limits=ABOVE_50))
    restrict = {"restrictions": ["never merchant casino"]}
    api.post(f"{SESSIONS}/{changed['session_id']}/restrict", restrict)
    answer = decide(api, changed["approval_id"], "grant")
    refused(answer, 409, "approval_refused")
    assert answer.json()["message"] == "the approval is refused: POLICY_CHANGED"
    after = shown(api, changed["approval_id"])
    assert (after["code"], after["payment_id"]) == ("POLICY_CHANGED", None)
