"""What the ledger and the log take from a decision, and how a session's state stands."""

import json

from engine.policy.decide import decide, remaining
from engine.policy.decision import STANDING_OF_STATE, Standing
from engine.policy.spending import Spending
from tests.policy.samples import NOW_MS, USD, limits, policy, request


def test_a_session_is_over_once_the_chain_says_so() -> None:
    def code(chain_time_ms: int) -> str:
        spending = Spending(policy())
        return decide(
            policy(), Standing.ACTIVE, spending, request(), NOW_MS, chain_time_ms=chain_time_ms
        ).code

    end_ms = policy().valid_until_ms
    assert [code(0), code(end_ms - 1), code(end_ms)] == ["ALLOWED", "ALLOWED", "SESSION_EXPIRED"]


def test_a_chain_that_lags_does_not_prolong_a_session() -> None:
    end_ms = policy().valid_until_ms
    decision = decide(
        policy(), Standing.ACTIVE, Spending(policy()), request(), end_ms, chain_time_ms=end_ms - 1
    )
    assert decision.code == "SESSION_EXPIRED"
    assert decision.evidence == {"valid_until_ms": end_ms, "now_ms": end_ms}


def test_a_decision_is_json_with_all_its_parts() -> None:
    bounded = policy(limits=limits(per_day=15 * USD))
    decision = decide(bounded, Standing.ACTIVE, Spending(bounded), request(), NOW_MS)
    assert json.loads(json.dumps(decision.to_json())) == {
        "allowed": True,
        "code": "ALLOWED",
        "rule": "all",
        "reason": "Every rule allows the payment.",
        "evidence": {"requested": 10 * USD, "used": [0, 0, 0]},
        "remaining": {
            "per_day": 5 * USD,
            "per_week": None,
            "per_month": None,
            "lifetime": None,
            "payments": None,
            "token": None,
            "merchant": None,
        },
    }


def test_what_remains_is_never_negative() -> None:
    bounded = policy(limits=limits(per_day=10, per_week=20))
    spending = Spending(bounded)
    spending.add(NOW_MS, request(amount=15))
    left = remaining(bounded, spending, NOW_MS)
    assert (left.per_day, left.per_week, left.per_month) == (0, 5, None)


def test_only_an_active_or_lapsed_session_stands_active() -> None:
    active = {state for state, standing in STANDING_OF_STATE.items() if standing is Standing.ACTIVE}
    assert active == {"active", "expired"}
