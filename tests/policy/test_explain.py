"""Explaining a payment. That its verdicts, limits and instants are right: `test_every_bound`."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.decide import decide
from engine.policy.decision import Standing
from engine.policy.explain import Explanation, explain
from engine.policy.limits import DAY_MS, HOUR_MS
from engine.policy.rules import RULES
from engine.policy.spending import Spending
from engine.policy.windows import RollingWindows
from tests.policy.samples import NOW_MS, USD, conditions, limits, policy, request


def told(standing: Standing = Standing.ACTIVE, **changes: Any) -> Explanation:
    in_force = policy(**changes)
    return explain(in_force, standing, Spending(in_force), request(), NOW_MS)


def test_what_is_allowed_is_allowed_now_and_every_rule_passes() -> None:
    found = told()
    assert found.decision.allowed
    assert found.allowed_at_ms == NOW_MS
    assert [verdict.rule for verdict in found.verdicts] == list(RULES)
    assert {verdict.finding for verdict in found.verdicts} == {None}
    assert found.limits == ()


def test_it_says_what_the_decision_says() -> None:
    in_force = policy(limits=limits(per_day=5 * USD, approval_above=1))
    spending = Spending(in_force)
    found = explain(in_force, Standing.ACTIVE, spending, request(), NOW_MS, approved=True)
    decision = decide(in_force, Standing.ACTIVE, spending, request(), NOW_MS, approved=True)
    assert found.decision == decision
    (broken,) = (verdict for verdict in found.verdicts if verdict.finding)
    assert broken.rule.name == decision.rule == "per_day"
    assert broken.finding == (decision.reason, decision.evidence)


@pytest.mark.parametrize("standing", [each for each in Standing if each is not Standing.ACTIVE])
def test_time_alone_makes_no_session_active(standing: Standing) -> None:
    assert told(standing).allowed_at_ms is None


@pytest.mark.parametrize(
    "changes",
    [
        {"merchants": frozenset()},
        {"conditions": conditions("never merchant books.example")},
        {"limits": limits(per_transaction=1)},
        {"limits": limits(approval_above=1)},
        {"limits": limits(per_day=10 * USD - 1)},
        {"conditions": conditions("lifetime at most 9.999999 USD")},
        {"conditions": conditions("only 08:00-24:00 UTC on Thu")},  # the session ends before
        {
            "conditions": conditions("only 09:00-10:00 UTC on Mon"),
            "restrictions": conditions("only 09:00-10:00 UTC on Tue"),
        },
        {"valid_until_ms": NOW_MS},
    ],
)
def test_what_time_does_not_cure_is_never_allowed(changes: dict[str, Any]) -> None:
    assert told(**changes).allowed_at_ms is None


def test_a_chain_that_is_past_the_end_stays_so() -> None:
    in_force = policy()
    found = explain(
        in_force,
        Standing.ACTIVE,
        Spending(in_force),
        request(),
        NOW_MS,
        chain_time_ms=in_force.valid_until_ms,
    )
    assert (found.decision.rule, found.allowed_at_ms) == ("valid_until", None)


def test_the_latest_of_all_that_must_pass_decides_and_then_the_hours() -> None:
    in_force = policy(
        valid_until_ms=NOW_MS + 10 * DAY_MS,
        limits=limits(per_day=15 * USD),
        conditions=conditions("at most 1 payment per hour", "only 09:30-10:00 UTC on Sat"),
    )
    spending, above = Spending(in_force), Budget("workspace", BudgetLimits(payments_per_hour=1))
    for counts in (spending, above):
        counts.add(NOW_MS - 1000, request())
    found = explain(in_force, Standing.ACTIVE, spending, request(), NOW_MS, budgets=(above,))
    # Saturday at 09:30 is 25.5 hours away, and the day's limit frees 1.5 hours earlier.
    assert found.allowed_at_ms == NOW_MS + 25 * HOUR_MS + HOUR_MS // 2


def test_every_limit_that_the_payment_would_use_is_listed_with_what_it_leaves() -> None:
    in_force = policy(
        limits=limits(per_week=50 * USD),
        conditions=conditions(
            "at most 3 payments per hour",
            "lifetime at most 25 USD",
            "merchant books.example at most 12 USD per day",
            "merchant other at most 12 USD per day",
        ),
    )
    spending, above = Spending(in_force), Budget("agent:bot", BudgetLimits(per_month=30 * USD))
    for counts in (spending, above):
        counts.add(NOW_MS - 1000, request())
    found = explain(in_force, Standing.ACTIVE, spending, request(), NOW_MS, budgets=(above,))
    shown = found.to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert [tuple(limit.values()) for limit in shown["limits"]] == [
        ("per_week", None, "micro_usd", 50 * USD, 10 * USD, 40 * USD, 7 * DAY_MS),
        ("at most 3 payments per hour", None, "payments", 3, 1, 2, HOUR_MS),
        ("lifetime at most 25 USD", None, "micro_usd", 25 * USD, 10 * USD, 15 * USD, None),
        (
            "merchant books.example at most 12 USD per day",
            *(None, "micro_usd", 12 * USD, 10 * USD, 2 * USD, DAY_MS),
        ),
        ("per_month", "agent:bot", "micro_usd", 30 * USD, 10 * USD, 20 * USD, 30 * DAY_MS),
    ]
    assert shown["decision"]["rule"] == "merchant_cap"
    assert shown["allowed_at_ms"] is None  # the session ends before a day is over
    passing = [rule for rule in shown["rules"] if rule["passes"]]
    denying = [rule for rule in shown["rules"] if not rule["passes"]]
    assert len(passing) + 1 == len(RULES)
    assert {(rule["reason"], rule["evidence"]) for rule in passing} == {(None, None)}
    assert denying == [
        {
            "rule": "merchant_cap",
            "code": "LIMIT_EXCEEDED",
            "meaning": "Over what a condition allows to the merchant.",
            "passes": False,
            "reason": shown["decision"]["reason"],
            "evidence": shown["decision"]["evidence"],
        }
    ]


def test_a_limit_of_a_session_that_delegates_has_the_name_it_has_in_a_denial() -> None:
    bounded = policy(
        limits=limits(per_day=100 * USD),
        conditions=conditions(
            "at most 3 payments per hour",
            "lifetime at most 500 USD",
            "merchant books.example at most 20 USD per day",
        ),
    )
    family, in_force = Budget("session:sess_1", bounded), policy()
    family.add(NOW_MS, request(amount=15 * USD))
    found = explain(
        in_force, Standing.ACTIVE, Spending(in_force), request(), NOW_MS, budgets=(family,)
    )
    cap = "merchant books.example at most 20 USD per day"
    assert [(limit.name, limit.budget, limit.limit) for limit in found.limits] == [
        ("payments_per_hour", "session:sess_1", 3),
        ("per_day", "session:sess_1", 100 * USD),
        ("lifetime", "session:sess_1", 500 * USD),
        (cap, "session:sess_1", 20 * USD),
    ]
    assert found.decision.evidence["name"] == cap


caps = st.none() | st.integers(1, 8)


@settings(max_examples=300, deadline=None)
@given(
    per_window=st.tuples(caps, caps, caps),
    spent=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=6),
    amount=st.integers(1, 5),
    valid_ms=st.tuples(st.integers(100, 125), st.integers(126, 150)),
)
def test_it_is_allowed_first_at_that_instant(
    per_window: tuple[int | None, ...],
    spent: list[tuple[int, int]],
    amount: int,
    valid_ms: tuple[int, int],
) -> None:
    """Windows of 4, 7 and 11 milliseconds: decide again at every millisecond to come."""
    names = ("per_day", "per_week", "per_month")
    in_force = policy(
        limits=limits(**dict(zip(names, per_window, strict=True))),
        valid_from_ms=valid_ms[0],
        valid_until_ms=valid_ms[1],
    )

    def after_all() -> tuple[Spending, int]:
        spending, now_ms = Spending(in_force, RollingWindows((4, 7, 11))), 100
        for gap_ms, paid in spent:
            now_ms += gap_ms
            spending.add(now_ms, request(amount=paid))
        return spending, now_ms

    def allowed(t_ms: int) -> bool:
        spending, _ = after_all()
        return decide(in_force, Standing.ACTIVE, spending, request(amount=amount), t_ms).allowed

    spending, now_ms = after_all()
    found = explain(in_force, Standing.ACTIVE, spending, request(amount=amount), now_ms)
    assert found.allowed_at_ms == next((t for t in range(now_ms, 160) if allowed(t)), None)
