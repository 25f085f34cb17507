"""A payment that is only tried over HTTP: who may, what is answered, that nothing is changed."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.clock import ManualClock, system_clock
from engine.policy.rules import RULES
from tests.rest.served import NO_LIMITS, SESSIONS, Served, refused


def simulate(api: Served, session: dict[str, Any], body: Any, **how: Any) -> httpx.Response:
    return api.post(f"{SESSIONS}/{session['id']}/simulate", body, **how)


@pytest.fixture
def day(api: Served) -> dict[str, Any]:
    """$100 a day, of which $40 are held, and $70 a payment."""
    limits = NO_LIMITS | {"max_per_day": 100, "max_per_transaction": 70}
    session = api.session(limits=limits, allowed_merchants=["books"])
    api.hold(session["session_token"], 40)
    return session


def test_what_fits_is_allowed_now(api: Served, day: dict[str, Any]) -> None:
    found = simulate(api, day, {"amount": 60, "merchant_id": "books"}).json()
    assert found.keys() == {"session_id", "decision", "rules", "limits", "allowed_at"}
    assert (found["session_id"], found["decision"]["code"]) == (day["id"], "ALLOWED")
    assert [rule["rule"] for rule in found["rules"]] == [rule.name for rule in RULES]
    assert all(rule["passes"] for rule in found["rules"])
    assert found["limits"] == [
        {
            "name": "per_day",
            "budget": None,
            "unit": "USD",
            "limit": 100,
            "used": 40,
            "remaining": 60,
            "window_ms": 86_400_000,
        }
    ]
    assert found["allowed_at"] is not None


def test_every_rule_against_it_is_told_and_the_first_decides(
    api: Served, day: dict[str, Any]
) -> None:
    asked = {"amount": "70.000001", "merchant_id": "casino"}
    found = simulate(api, day, asked).json()
    against = {rule["rule"]: rule for rule in found["rules"] if not rule["passes"]}
    assert list(against) == ["merchants", "per_transaction", "per_day"]
    assert found["decision"]["rule"] == "merchants"
    assert found["decision"]["reason"] == against["merchants"]["reason"]
    assert against["per_day"]["evidence"]["requested"] == 70_000_001
    assert found["allowed_at"] is None
    denied = api.pay(day["session_token"], asked["amount"], merchant_id="casino").json()
    assert denied["decision"] == found["decision"]


def test_the_holder_hears_what_the_operator_hears(api: Served, day: dict[str, Any]) -> None:
    body = {"amount": 61, "merchant_id": "books"}
    mine = simulate(api, day, body, key=None, token=day["session_token"]).json()
    assert mine["decision"]["code"] == "LIMIT_EXCEEDED"
    assert mine == simulate(api, day, body).json()
    other = api.session()["session_token"]
    refused(simulate(api, day, body, key=None, token=other), 404, "session_not_found")
    refused(simulate(api, {"id": "sess_none"}, body), 404, "session_not_found")


def test_no_key_is_used_and_nothing_is_recorded(api: Served, day: dict[str, Any]) -> None:
    before = api.records()
    key = {"headers": {"Idempotency-Key": "tried"}}
    body = {"amount": 10, "merchant_id": "books"}
    first, again = (simulate(api, day, body, **key) for _ in range(2))
    assert (again.status_code, again.json()["decision"]) == (200, first.json()["decision"])
    assert "Idempotent-Replayed" not in again.headers
    assert api.records() == before
    paid = api.pay(day["session_token"], 60, **key)
    assert (paid.status_code, "Idempotent-Replayed" in paid.headers) == (201, False)


def test_the_body_is_that_of_a_payment(api: Served, day: dict[str, Any]) -> None:
    whole = {
        "amount": "1.5",
        "token": "usdc",
        "chain": api.world.request(1).chain,
        "recipient_wallet": "books",
        "description": "x",
        "metadata": {"a": 1},
        "currency": "USD",
        "capture_method": "automatic",
    }
    assert simulate(api, day, whole).json()["decision"]["allowed"]
    two = {"amount": 1, "merchant_id": "books", "recipient_wallet": "casino"}
    refused(simulate(api, day, two), 422, "invalid_parameter", "recipient_wallet")
    refused(simulate(api, day, {}), 422, "missing_required_field", "amount")
    refused(simulate(api, day, {"amount": 1, "x": 1}), 422, "invalid_parameter", "x")
    unknown = {"amount": 1, "merchant_id": "books", "token": "DOGE"}
    assert simulate(api, day, unknown).json()["decision"]["code"] == "TOKEN_NOT_ALLOWED"


def test_a_payment_is_denied_a_millisecond_before_and_allowed_at_that_instant(
    tmp_path: Path,
) -> None:
    clock = ManualClock(system_clock())
    with Served(tmp_path / "data", clock=clock) as api:
        limits = NO_LIMITS | {"max_per_day": 100}
        session = api.session(limits=limits, duration_hours=48)
        token = session["session_token"]
        api.hold(token, 70, capture_method="automatic")
        clock.advance(1_234)
        api.hold(token, 30, capture_method="automatic")
        found = simulate(api, session, {"amount": 80}).json()
        clock.advance(86_400_000 - 1)
        assert api.pay(token, 80).status_code == 402
        clock.advance(1)
        assert api.hold(token, 80)["created_at"] == found["allowed_at"]
