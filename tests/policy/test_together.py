"""What a session that delegates has left: what its own payments leave, and those beneath it."""

from engine.policy.budgets import Budget
from engine.policy.decide import left, left_together, remaining, remaining_together
from engine.policy.limit_checks import most_at_once
from engine.policy.spending import Spending
from tests.policy.samples import NOW_MS, USD, USDC, conditions, limits, policy, request

SENTENCES = (
    "merchant books.example at most 40 USD per day",
    f"token {USDC} at most 60 USD per week",
    "at most 5 payments per day",
)


def test_it_is_the_least_of_both() -> None:
    of_session = policy(limits=limits(per_day=100 * USD), conditions=conditions(*SENTENCES))
    own, family = Spending(of_session), Budget("session:x", of_session)
    for amount in (10 * USD, 15 * USD):  # beneath it
        family.add(NOW_MS - 2, request(amount=amount))
    alone = remaining(of_session, own, NOW_MS, request())
    assert (alone.per_day, alone.merchant, alone.token, alone.payments) == (
        100 * USD,
        40 * USD,
        60 * USD,
        5,
    )
    found = remaining_together(alone, family.meters, NOW_MS, request())
    assert (found.per_day, found.per_week, found.merchant, found.token, found.payments) == (
        75 * USD,
        None,
        15 * USD,
        35 * USD,
        3,
    )
    told = left_together(left(of_session, own, NOW_MS), family.meters, NOW_MS)
    assert told.remaining.per_day == 75 * USD
    assert {cap.of: rest for cap, rest in told.caps} == {
        "merchant": 15 * USD,
        "token": 35 * USD,
        "payments": 3,
    }


def test_without_a_limit_there_is_nothing_to_share() -> None:
    unlimited = policy(limits=limits())
    family = Budget("session:x", unlimited)
    own = remaining(unlimited, Spending(unlimited), NOW_MS)
    assert remaining_together(own, family.meters, NOW_MS) == own


def test_the_most_at_once_is_the_least_of_what_concerns_the_payment() -> None:
    capped = policy(
        limits=limits(per_transaction=9 * USD),
        conditions=conditions("merchant books.example at most 4 USD per transaction"),
    )
    assert most_at_once(capped, request()) == 4 * USD
    assert most_at_once(capped, request(merchant="other.example")) == 9 * USD
    assert most_at_once(policy(), request()) is None
