"""Every denial is a 402 that says why, in both shapes that clients read."""

import sqlite3
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest

from engine.clock import ManualClock, system_clock
from engine.errors import Unavailable
from engine.policy.decision import Code
from engine.policy.limits import DAY_MS
from engine.settings import Token
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served

# What the session is, and what is asked of it.
DENIALS: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("PERMISSION_NOT_ALLOWED", "permissions"): ({"permissions": ["read"]}, {}),
    ("CHAIN_NOT_ALLOWED", "chains"): ({"allowed_chains": ["eip155:1"]}, {}),
    ("TOKEN_NOT_ALLOWED", "tokens"): ({"allowed_tokens": ["USDC"]}, {"token": "SOL"}),
    ("TOKEN_NOT_ALLOWED", "token_price"): ({}, {"token": "WETH"}),
    ("MERCHANT_NOT_ALLOWED", "merchants"): ({"allowed_merchants": ["books"]}, {"merchant": "bar"}),
    ("LIMIT_EXCEEDED", "per_transaction"): ({"limits": {"max_per_transaction": 9}}, {}),
    ("LIMIT_EXCEEDED", "per_day"): ({"limits": {"max_per_day": 9}}, {}),
    ("LIMIT_EXCEEDED", "per_week"): ({"limits": {"max_per_week": 9}}, {}),
    ("LIMIT_EXCEEDED", "per_month"): ({"limits": {"max_per_month": 9}}, {}),
    ("APPROVAL_REQUIRED", "approval_above"): ({"limits": {"require_approval_above": 9}}, {}),
    ("SESSION_NOT_ANCHORED", "anchored"): ({"await_consent": True}, {}),
    ("SESSION_REVOKED", "revoked"): ({}, {}),
    ("SESSION_EXPIRED", "valid_until"): ({}, {}),
    ("SESSION_PAUSED", "paused"): ({}, {}),
    ("PARAMETERS_MISMATCH", "parameters"): ({}, {}),
}
UNREACHABLE = {"ALLOWED", "SESSION_NOT_STARTED", "OUTSIDE_ACTIVE_HOURS"}
"""A session starts when it is created and time never goes back; no grant has active hours yet."""


def test_every_code_that_a_caller_can_hear_is_heard_below() -> None:
    assert {code for code, _ in DENIALS} == set(get_args(Code)) - UNREACHABLE


@pytest.fixture(scope="module")
def denying(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An installation with a token that has no price, and a clock that can be moved."""
    ether = Token(symbol="WETH", asset="eip155:131277322940537/slip44:60", decimals=18)
    clock = ManualClock(system_clock())
    directory = tmp_path_factory.mktemp("denying") / "data"
    with Served(directory, clock=clock, tokens=(ether,)) as served:
        yield served


def bring_about(api: Served, code: str, session_id: str) -> None:
    """What no field of the request does: revoke, expire, or change what is stored."""
    if code == "SESSION_REVOKED":
        api.post(f"{SESSIONS}/{session_id}/revoke")
    elif code == "SESSION_EXPIRED":
        api.world.clock.advance(DAY_MS + 1000)
        api.world.engine.tick()
    elif code == "SESSION_PAUSED":
        assert api.post(f"{SESSIONS}/{session_id}/pause").json()["status"] == "paused"
    elif code == "PARAMETERS_MISMATCH":
        change = """grant_json = replace(
            grant_json, '"per_day":9000000', '"per_day":9000000000')"""
        with sqlite3.connect(api.world.settings.data_dir / "ledger.sqlite3") as database:
            done = database.execute(f"UPDATE sessions SET {change} WHERE id = ?", (session_id,))
            assert done.rowcount == 1
        database.close()
        with pytest.raises(Unavailable):  # a batch that fails makes the engine read it all again
            api.world.engine.writer.call(lambda batch: 1 // 0)


@pytest.mark.parametrize("way", ["payment", "smart payment"])
@pytest.mark.parametrize(("code", "rule"), DENIALS, ids=[" ".join(pair) for pair in DENIALS])
def test_a_denial_is_a_402_with_its_code_in_both_shapes_and_is_on_record(
    denying: Served, code: str, rule: str, way: str
) -> None:
    fields, asked = DENIALS[code, rule]
    limits = NO_LIMITS | ({"max_per_day": 9} if code == "PARAMETERS_MISMATCH" else {})
    fields = fields | {"limits": limits | fields.get("limits", {})}
    wallet = denying.world.owner.address
    session = denying.session(user_wallet=wallet, mint_pkp=code == "SESSION_NOT_ANCHORED", **fields)
    bring_about(denying, code, session["id"])
    body = {"merchant_id": asked.get("merchant", "books"), "token": asked.get("token", "USDC")}
    token = session["session_token"]
    if way == "payment":
        answer = denying.call("POST", PAYMENTS, body | {"amount": 10}, token=token)
    else:
        answer = denying.post(SMART, body | {"amount_usd": 10, "session_token": token})
    denial = answer.json()
    assert answer.status_code == 402
    assert (denial["error"]["code"], denial["code"]) == (code, code)
    assert denial["error"]["message"] == denial["message"] == denial["decision"]["reason"]
    assert denial["details"] == {"rule": rule, "evidence": denial["decision"]["evidence"]}
    assert (denial["status"], denial["state"], denial["captured_usd"]) == ("failed", "denied", 0)
    kept = denying.get(f"{PAYMENTS}/{denial['id']}").json()
    assert kept["decision"] == denial["decision"] | {"allowed": False, "code": code, "rule": rule}


def test_a_merchant_must_be_named_where_merchants_are_listed(api: Served) -> None:
    token = api.session(allowed_merchants=["books"])["session_token"]
    denied = api.call("POST", PAYMENTS, {"amount": 1}, token=token)
    assert denied.json()["code"] == "MERCHANT_NOT_ALLOWED"


def test_an_unknown_token_is_denied_and_not_an_error(api: Served) -> None:
    token = api.session()["session_token"]
    for changes in ({"token": "DOGE"}, {"chain": "eip155:1"}, {"token": "usdc", "chain": "a-b:1"}):
        denied = api.call("POST", PAYMENTS, {"amount": 1} | changes, token=token)
        assert (denied.status_code, denied.json()["code"]) == (402, "TOKEN_NOT_ALLOWED")
    allowed = api.call("POST", PAYMENTS, {"amount": 1, "token": "usdc"}, token=token)
    assert allowed.status_code == 201


def test_what_a_denial_says_is_left_was_not_changed_by_it(api: Served) -> None:
    token = api.session(limits=NO_LIMITS | {"max_per_day": 200})["session_token"]
    assert api.pay(token, 50).json()["remaining_today"] == 150
    assert api.pay(token, "150.01").json()["remaining_today"] == 150
    assert api.pay(token, 150).json()["remaining_today"] == 0


def test_a_session_at_a_limit_is_paused_by_itself_until_the_window_frees(api: Served) -> None:
    made = api.session(limits=NO_LIMITS | {"max_per_day": 200})
    path, token = f"{SESSIONS}/{made['id']}", made["session_token"]
    shown = ("status", "is_active", "resumes_at")
    assert [made[name] for name in shown] == ["active", True, None]
    paid = api.pay(token, 150, capture_method="automatic").json()
    denial = api.pay(token, 60).json()
    assert denial["code"] == "LIMIT_EXCEEDED"
    paused = api.get(path).json()
    a_day_later = datetime.fromisoformat(paid["created_at"]) + timedelta(days=1)
    assert (paused["status"], paused["is_active"]) == ("paused", False)
    assert datetime.fromisoformat(paused["resumes_at"]) == a_day_later
    assert api.pay(token, 201).status_code == 402  # which no time will allow
    assert api.get(path).json()["resumes_at"] == paused["resumes_at"]
    assert api.pay(token, 50).status_code == 201  # what fits is paid, and ends the pause
    assert [api.get(path).json()[name] for name in shown] == ["active", True, None]


def test_a_hold_that_is_over_ends_the_pause_before_the_window_frees(api: Served) -> None:
    made = api.session(limits=NO_LIMITS | {"max_per_day": 200})
    path, token = f"{SESSIONS}/{made['id']}", made["session_token"]
    first, second = (api.hold(token, 90) for _ in range(2))
    evidence = api.pay(token, 60).json()["decision"]["evidence"]
    a_day_later = datetime.fromisoformat(first["created_at"]) + timedelta(days=1)
    assert evidence["retry_at_ms"] == round(a_day_later.timestamp() * 1000)
    assert api.get(path).json()["resumes_at"] == first["expires_at"]
    simulated = api.post(f"{path}/simulate", {"amount": 60}, token=token).json()
    assert simulated["allowed_at"] == first["expires_at"]
    simulated = api.post(f"{path}/simulate", {"amount": 180}, token=token).json()
    assert simulated["allowed_at"] == second["expires_at"]
