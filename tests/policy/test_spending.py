"""Caps over time, one by one; together they stand in `test_every_bound`."""

import sys
from types import FrameType
from typing import Any

import pytest

from engine.policy import prefix_sums, spending, windows
from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.conditions import Cap
from engine.policy.decide import decide, left, remaining
from engine.policy.decision import Decision, PaymentRequest, Policy, Standing
from engine.policy.limits import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from engine.policy.spending import Spending
from tests.policy.samples import CHAIN, NOW_MS, USD, USDC, conditions, limits, policy, request

OTHER = f"{CHAIN}/slip44:60"
FOREVER: dict[str, Any] = {
    "valid_from_ms": 0,
    "valid_until_ms": 10**15,
    "merchants": None,
    "tokens": None,
}


class Session:
    """A policy and what was used of it."""

    def __init__(self, *sentences: str, **changes: Any) -> None:
        self.policy = policy(conditions=conditions(*sentences), **{**FOREVER, **changes})
        self.spending = Spending(self.policy)
        self.budgets: tuple[Budget, ...] = ()

    def ask(self, now_ms: int, **changes: Any) -> Decision:
        return decide(
            self.policy,
            Standing.ACTIVE,
            self.spending,
            request(**changes),
            now_ms,
            budgets=self.budgets,
        )

    def pay(self, now_ms: int, **changes: Any) -> windows.Entry:
        assert self.ask(now_ms, **changes).allowed
        return self.spending.add(now_ms, request(**changes))


@pytest.mark.parametrize(
    ("sentence", "length_ms", "span"),
    [
        ("at most 2 payments per hour", HOUR_MS, "1 hour"),
        ("at most 2 payments per day", DAY_MS, "24 hours"),
        ("at most 2 payments per lifetime", None, "all"),
    ],
)
def test_payments_are_counted(sentence: str, length_ms: int | None, span: str) -> None:
    session = Session(sentence)
    session.pay(NOW_MS, amount=1)
    assert session.ask(NOW_MS + 5).remaining.payments == 0
    session.pay(NOW_MS + 5, amount=10**14)
    later = NOW_MS + (MONTH_MS if length_ms is None else length_ms) - 1
    denied = session.ask(later)
    assert denied.rule == "payments"
    assert denied.reason == f"A payment on top of 2 is above the limit of 2 in {span}."
    assert denied.evidence == {
        "condition": sentence,
        "limit": 2,
        "used": 2,
        "requested": 1,
        "window_ms": length_ms,
        "retry_at_ms": None if length_ms is None else later + 1,
    }
    assert session.ask(later + 1).allowed == (length_ms is not None)


@pytest.mark.parametrize("per", ["hour", "day", "lifetime"])
def test_a_payment_counts_until_nothing_of_it_does(per: str) -> None:
    session = Session(f"at most 1 payment per {per}")
    entry = session.pay(NOW_MS)
    session.spending.reduce(entry, 1)
    assert session.ask(NOW_MS).rule == "payments"
    session.spending.reduce(entry, 0)
    session.spending.reduce(entry, 0)
    assert session.ask(NOW_MS).allowed
    session.pay(NOW_MS)
    assert session.ask(NOW_MS).rule == "payments"


def test_a_lifetime_never_frees_but_by_what_was_not_spent() -> None:
    session = Session("lifetime at most 25 USD")
    first = session.pay(NOW_MS, amount=20 * USD)
    assert session.ask(NOW_MS, amount=5 * USD).remaining.lifetime == 0
    much_later = NOW_MS + 3 * MONTH_MS
    denied = session.ask(much_later)
    assert denied.rule == "lifetime"
    assert denied.reason == (
        "$10.00 on top of $20.00 already used is above the limit of $25.00 in all."
    )
    assert denied.evidence["retry_at_ms"] is None
    assert (denied.remaining.lifetime, denied.remaining.per_day) == (5 * USD, None)
    session.spending.reduce(first, 15 * USD)
    assert session.ask(much_later).remaining.lifetime == 0


@pytest.mark.parametrize(
    ("per", "length_ms"),
    [("hour", HOUR_MS), ("day", DAY_MS), ("week", WEEK_MS), ("month", MONTH_MS)],
)
@pytest.mark.parametrize("of", ["token", "merchant"])
def test_a_cap_counts_what_it_is_about_and_nothing_else(of: str, per: str, length_ms: int) -> None:
    mine, name, other = {
        "token": ({"token": USDC}, USDC, {"token": OTHER}),
        "merchant": ({"merchant": "books"}, "books", {"merchant": "other"}),
    }[of]
    session = Session(f"{of} {name} at most 25 USD per {per}")
    session.pay(NOW_MS, **other)
    session.pay(NOW_MS, **mine)
    if of == "merchant":
        session.pay(NOW_MS, merchant=None)
    assert getattr(session.ask(NOW_MS + 1, **mine).remaining, of) == 5 * USD
    assert getattr(session.ask(NOW_MS + 1, **other).remaining, of) is None
    session.pay(NOW_MS + 1, **mine)
    denied = session.ask(NOW_MS + length_ms - 1, **mine)
    assert denied.rule == f"{of}_cap"
    assert denied.reason.endswith(f" for {of} {name}.")
    assert denied.evidence["condition"] == f"{of} {name} at most 25 USD per {per}"
    assert denied.evidence["retry_at_ms"] == NOW_MS + length_ms
    assert session.ask(NOW_MS + length_ms - 1, **other).allowed
    assert session.ask(NOW_MS + length_ms, **mine).allowed


def test_of_several_caps_on_one_thing_the_shortest_window_is_reported_first() -> None:
    session = Session(
        "merchant books at most 30 USD per month",
        "merchant books at most 25 USD per lifetime",
        "merchant books at most 15 USD per hour",
    )
    session.pay(NOW_MS, merchant="books")
    assert session.ask(NOW_MS, merchant="books").evidence["window_ms"] == HOUR_MS
    assert session.ask(NOW_MS + HOUR_MS, merchant="books", amount=5 * USD).allowed
    session.pay(NOW_MS + HOUR_MS, merchant="books")
    later = session.ask(NOW_MS + 2 * HOUR_MS, merchant="books", amount=11 * USD)
    assert later.evidence["window_ms"] == MONTH_MS
    assert later.remaining.merchant == 5 * USD
    last = session.ask(NOW_MS + 2 * HOUR_MS, merchant="books", amount=6 * USD)
    assert (last.evidence["window_ms"], last.evidence["limit"]) == (None, 25 * USD)


@pytest.mark.parametrize(
    ("sentence", "whose"),
    [
        ("merchant books at most 20 USD per transaction", "for merchant books"),
        (f"token {USDC} at most 20 USD per transaction", f"for token {USDC}"),
    ],
)
def test_a_cap_on_one_payment(sentence: str, whose: str) -> None:
    session = Session(sentence)
    for _ in range(5):
        session.pay(NOW_MS, merchant="books", amount=20 * USD)
    denied = session.ask(NOW_MS, merchant="books", amount=20 * USD + 1)
    assert (denied.code, denied.rule) == ("LIMIT_EXCEEDED", "per_transaction")
    assert denied.reason == f"$20.000001 is above the limit of $20.00 per payment {whose}."
    assert denied.evidence == {
        "condition": sentence,
        "limit": 20 * USD,
        "requested": 20 * USD + 1,
    }
    other = {"merchant": "other", "token": OTHER, "amount": 20 * USD + 1}
    assert session.ask(NOW_MS, **other).allowed
    assert (denied.remaining.merchant, denied.remaining.token) == (None, None)


def test_of_a_condition_and_a_restriction_the_stricter_holds() -> None:
    for said, restricted in [(5, 9), (9, 5)]:
        session = Session(
            f"lifetime at most {said} USD",
            restrictions=conditions(f"lifetime at most {restricted} USD", "never merchant casino"),
        )
        assert session.ask(NOW_MS, amount=5 * USD).allowed
        assert session.ask(NOW_MS, amount=5 * USD + 1).rule == "lifetime"
        assert session.ask(NOW_MS, merchant="casino").rule == "never_merchant"


def test_restricted_hours_leave_only_what_both_leave() -> None:
    session = Session(
        "only 07:00-09:00 UTC on Fri", restrictions=conditions("only 08:30-24:00 UTC on Fri")
    )
    denied = session.ask(NOW_MS)  # Friday, 08:00
    assert denied.rule == "active_hours"
    assert denied.reason == "The session does not pay at this time of the week."
    opens_at_ms = NOW_MS + HOUR_MS // 2
    assert denied.evidence == {"opens_at_ms": opens_at_ms, "now_ms": NOW_MS}
    assert session.ask(opens_at_ms).allowed
    assert session.ask(NOW_MS + HOUR_MS).rule == "active_hours"
    never = Session(
        "only 07:00-09:00 UTC on Fri", restrictions=conditions("only 07:00-09:00 UTC on Mon")
    )
    assert never.ask(NOW_MS).evidence["opens_at_ms"] is None


@pytest.mark.parametrize(
    ("sentence", "reason", "evidence"),
    [
        (
            "never merchant books.example",
            "The session may never pay merchant books.example.",
            {"merchant": "books.example"},
        ),
        (f"never token {USDC}", f"The session may never pay with token {USDC}.", {"token": USDC}),
        (f"never chain {CHAIN}", f"The session may never pay on chain {CHAIN}.", {"chain": CHAIN}),
    ],
)
def test_what_is_ruled_out(sentence: str, reason: str, evidence: dict[str, str]) -> None:
    denied = Session(sentence).ask(NOW_MS)
    assert (denied.reason, denied.evidence) == (reason, evidence)


def test_what_remains_without_a_request_is_what_is_the_same_for_all() -> None:
    session = Session(
        "at most 3 payments per hour",
        "lifetime at most 50 USD",
        "merchant books at most 5 USD per day",
        limits=limits(per_week=40 * USD),
    )
    session.pay(NOW_MS, merchant="other")
    left = remaining(session.policy, session.spending, NOW_MS)
    assert (left.per_week, left.lifetime, left.payments) == (30 * USD, 40 * USD, 2)
    assert (left.token, left.merchant) == (None, None)
    asked = request(merchant="books")
    assert remaining(session.policy, session.spending, NOW_MS, asked).merchant == 5 * USD


def test_the_spending_of_another_policy_is_refused() -> None:
    capped = policy(conditions=conditions("at most 3 payments per hour"))
    with pytest.raises(AssertionError, match="another policy"):
        decide(capped, Standing.ACTIVE, Spending(policy()), request(), NOW_MS)


BUDGETS = [
    ("payments_per_hour", "payments", HOUR_MS),
    ("payments_per_day", "payments", DAY_MS),
    ("per_day", "sum", DAY_MS),
    ("per_week", "sum", WEEK_MS),
    ("per_month", "sum", MONTH_MS),
    ("lifetime", "sum", None),
]


@pytest.mark.parametrize(("name", "of", "length_ms"), BUDGETS)
@pytest.mark.parametrize(
    ("budget_id", "rule"), [("agent:shopper", "agent_budget"), ("workspace", "workspace_budget")]
)
def test_a_budget_is_shared_by_the_sessions_below_it(
    budget_id: str, rule: str, name: str, of: str, length_ms: int | None
) -> None:
    limit, used, requested = (2, 2, 1) if of == "payments" else (25 * USD, 20 * USD, 10 * USD)
    shared = Budget(budget_id, BudgetLimits(**{name: limit}))
    one, other = Session(), Session()
    one.budgets = other.budgets = (shared,)
    for session, now_ms in ((one, NOW_MS), (other, NOW_MS + 1)):
        session.pay(now_ms)
        entry = shared.add(now_ms, request())
    last_ms = NOW_MS + (MONTH_MS if length_ms is None else length_ms) - 1
    for session in (one, other):
        denied = session.ask(last_ms)
        assert (denied.code, denied.rule) == ("LIMIT_EXCEEDED", rule)
        assert denied.evidence == {
            "budget": budget_id,
            "name": name,
            "limit": limit,
            "used": used,
            "requested": requested,
            "window_ms": length_ms,
            "retry_at_ms": None if length_ms is None else last_ms + 1,
        }
        assert denied.reason.endswith(f" of budget {budget_id}.")
    assert one.ask(last_ms + 1).allowed == (length_ms is not None)
    shared.reduce(entry, 0)
    assert one.ask(last_ms + 1).allowed


def test_of_two_budgets_that_are_used_up_the_agent_s_is_reported() -> None:
    session = Session()
    session.budgets = tuple(
        Budget(name, BudgetLimits(per_day=1)) for name in ("workspace", "agent:shopper")
    )
    assert session.ask(NOW_MS).rule == "agent_budget"


def test_a_budget_never_grows_back() -> None:
    shared = Budget("workspace", BudgetLimits(per_day=5))
    entry = shared.add(NOW_MS, request(amount=4))
    for to_amount in (5, -1):
        with pytest.raises(AssertionError):
            shared.reduce(entry, to_amount)


def test_the_budget_of_a_session_that_delegates_is_all_that_bounds_it_over_time() -> None:
    bounded = policy(
        limits=limits(per_day=100, per_week=None, per_month=300),
        conditions=conditions(
            "at most 7 payments per day",
            "lifetime at most 0.0005 USD",
            "merchant books at most 0.00005 USD per transaction",
            "merchant books at most 0.00008 USD per day",
        ),
    )
    meters = Budget("session:sess_1", bounded).meters
    found = [
        (gauge.cap.limit_name, gauge.cap.at_most)
        for meter in meters.concerned(PaymentRequest(1, "books", "eip155:1/a:b", "eip155:1", True))
        for gauge in meter.gauges(1, NOW_MS)
    ]
    assert found == [
        ("payments_per_day", 7),
        ("per_day", 100),
        ("per_month", 300),
        ("lifetime", 500),
        ("merchant books at most 0.00008 USD per day", 80),
    ]


@pytest.mark.parametrize("budget_id", ["", "agent", "session", "Workspace"])
def test_a_budget_is_of_a_session_an_agent_or_the_workspace(budget_id: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a budget"):
        Budget(budget_id, BudgetLimits())


@pytest.mark.parametrize(
    "cap",
    [
        ("sum", None, -1, "day"),
        ("sum", "books", 1, "day"),
        ("token", None, 1, "day"),
        ("sum", None, True, "day"),
        ("sum", None, 2**53, "day"),
    ],
)
def test_a_cap_that_means_nothing_is_refused(cap: Any) -> None:
    with pytest.raises(AssertionError):
        Cap(*cap)


def test_what_a_policy_remembers_does_not_grow_with_what_is_paid() -> None:
    session = Session("never merchant m7", merchants=None)
    for number in [*range(100), 7]:
        assert session.ask(NOW_MS, merchant=f"m{number}").allowed == (number != 7)
    assert len(session.policy.plans) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lifetime at most 5000 USD", "lifetime at most 4999 USD"),
        ("only 09:00-17:00 UTC on Mon", "only 09:00-17:00 UTC on Mon"),
        ("only 09:00-17:00 UTC on Mon", "only 10:00-11:30 UTC on Fri"),
        ("never merchant m7", "never merchant m8"),
    ],
)
def test_sessions_of_one_shape_share_what_is_known_of_it(one: str, other: str) -> None:
    plans = []
    for condition in (one, other):
        session = Session(condition, merchants=None)
        session.ask(NOW_MS)
        [plan] = session.policy.plans.values()
        plans.append(plan)
    assert plans[0] is plans[1]
    unbound = Session(merchants=None)
    unbound.ask(NOW_MS)
    assert plans[0] not in unbound.policy.plans.values()


def _lines_run(session: Session, asked: PaymentRequest, now_ms: int) -> int:
    """How many lines of the policy one decision and its payment run."""
    files = {module.__file__ for module in (spending, windows, prefix_sums)}
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        decide(session.policy, Standing.ACTIVE, session.spending, asked, now_ms)
        entry = session.spending.add(now_ms, asked)
        session.spending.reduce(entry, 0)
    finally:
        sys.settrace(before)
    return count


def test_the_cost_of_a_decision_does_not_grow_with_history_nor_with_other_merchants() -> None:
    costs = []
    for length, merchants in ((100, 1), (10_000, 30)):
        session = Session(
            "at most 5000 payments per hour",
            "lifetime at most 0.000001 USD",
            *(f"merchant m{number} at most 9 USD per day" for number in range(merchants)),
        )
        asked = request(amount=5, merchant="m0")
        for t_ms in range(1, length + 1):
            session.spending.add(t_ms, asked)
        costs.append(_lines_run(session, asked, length + 1))
    short, long = costs
    assert short > 20
    assert long <= 3 * short


def test_the_same_policy_may_be_decided_under_by_any_spending_of_it() -> None:
    in_force: Policy = policy(conditions=conditions("at most 1 payment per hour"))
    one, other = Spending(in_force), Spending(in_force)
    one.add(NOW_MS, request())
    assert decide(in_force, Standing.ACTIVE, one, request(), NOW_MS).rule == "payments"
    assert decide(in_force, Standing.ACTIVE, other, request(), NOW_MS).allowed


def test_all_that_is_left_is_of_every_cap_whatever_is_paid_next() -> None:
    session = Session(
        "at most 3 payments per day",
        "lifetime at most 0.0005 USD",
        "merchant books at most 0.00005 USD per transaction",
        "merchant books at most 0.00008 USD per day",
        "merchant films at most 0.00009 USD per week",
        limits=limits(per_day=100),
    )
    session.spending.add(NOW_MS, request(amount=30, merchant="books"))
    found = left(session.policy, session.spending, NOW_MS + 1)
    assert found.remaining.per_day == 70
    assert {str(cap): amount for cap, amount in found.caps} == {
        "at most 3 payments per day": 2,
        "lifetime at most 0.0005 USD": 470,
        "merchant books at most 0.00008 USD per day": 50,
        "merchant films at most 0.00009 USD per week": 90,
    }


ACCOUNT = "0x" + "5b" * 20


@pytest.mark.parametrize(
    "caps",
    [{ACCOUNT: 30}, {"books": 50, ACCOUNT: 30}, {"books": 30, ACCOUNT: 50}, {"books": 30}],
    ids=["account", "account is tighter", "name is tighter", "name"],
)
def test_who_is_paid_is_capped_under_either_name(
    caps: dict[str, int],
) -> None:
    session = Session(*(f"merchant {name} at most {usd} USD per day" for name, usd in caps.items()))
    session.pay(NOW_MS, amount=10 * USD, merchant="books", pay_to=ACCOUNT)
    paid = request(merchant="books", pay_to=ACCOUNT)
    found = remaining(session.policy, session.spending, NOW_MS, paid)
    assert found.merchant == 20 * USD
    denied = session.ask(NOW_MS, amount=21 * USD, merchant="books", pay_to=ACCOUNT)
    assert denied.code == "LIMIT_EXCEEDED"
    session.pay(NOW_MS, amount=20 * USD, merchant="books", pay_to=ACCOUNT)


def test_an_account_that_is_the_merchant_counts_once() -> None:
    session = Session(f"merchant {ACCOUNT} at most 30 USD per day")
    session.pay(NOW_MS, amount=15 * USD, merchant=ACCOUNT, pay_to=ACCOUNT)
    session.pay(NOW_MS, amount=15 * USD, merchant=ACCOUNT, pay_to=ACCOUNT)
