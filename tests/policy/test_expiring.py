"""When a payment is allowed first, where open holds are over if nobody captures them."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.conditions import parse_conditions
from engine.policy.decide import decide
from engine.policy.decision import Policy, Standing
from engine.policy.expiring import Expiry
from engine.policy.explain import explain
from engine.policy.limits import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from engine.policy.spending import Spending
from tests.policy.samples import NOW_MS, conditions, limits, policy, request

LONG_MS = 2 * MONTH_MS
LENGTHS_MS = (HOUR_MS, DAY_MS, WEEK_MS, MONTH_MS)


@dataclass(frozen=True)
class Paid:
    """A payment, by the session or by another under its budgets; None: it is never over."""

    decided_ms: int
    amount: int
    own: bool
    expires_ms: int | None


@dataclass(frozen=True)
class Bounds:
    policy: Policy
    agent: BudgetLimits
    workspace: BudgetLimits

    def counted(self, paid: list[Paid], t_ms: int) -> tuple[Spending, list[Budget], list[Expiry]]:
        """What counts at an instant, made from nothing, and what is over later."""
        spending = Spending(self.policy)
        budgets = [Budget("agent:bot", self.agent), Budget("workspace", self.workspace)]
        later = []
        for each in paid:
            asked = request(amount=each.amount)
            over = each.expires_ms is not None and each.expires_ms <= t_ms
            for counts in (spending, *budgets) if each.own else budgets:
                entry = counts.add(each.decided_ms, asked)
                if over:
                    counts.reduce(entry, 0)
                elif each.expires_ms is not None:
                    whole = ((counts.windows, entry),) if isinstance(counts, Spending) else ()
                    later.append(Expiry(each.expires_ms, (*whole, *entry.parts)))
        return spending, budgets, later

    def allow(self, paid: list[Paid], amount: int, t_ms: int) -> bool:
        spending, budgets, _ = self.counted(paid, t_ms)
        asked = request(amount=amount)
        return decide(self.policy, Standing.ACTIVE, spending, asked, t_ms, budgets=budgets).allowed

    def told(self, paid: list[Paid], amount: int, now_ms: int) -> int | None:
        spending, budgets, later = self.counted(paid, now_ms)
        asked = request(amount=amount)
        return explain(
            self.policy,
            Standing.ACTIVE,
            spending,
            asked,
            now_ms,
            budgets=budgets,
            expiries=iter(later),
        ).allowed_at_ms


caps = st.none() | st.integers(1, 9)
gaps_ms = st.sampled_from([0, 1, 1000, HOUR_MS // 2, HOUR_MS, DAY_MS // 3, DAY_MS, 3 * DAY_MS])
lives_ms = st.none() | st.sampled_from([1, 7, 60_000, HOUR_MS, HOUR_MS + 1, 2 * DAY_MS, 7 * DAY_MS])
sentences = st.lists(
    st.sampled_from(
        [
            "at most 1 payment per hour",
            "at most 2 payments per day",
            "at most 3 payments per lifetime",
            "lifetime at most 0.000009 USD",
            "merchant books.example at most 0.000004 USD per week",
            "only 09:30-10:00 UTC on Mon Thu",
        ]
    ),
    unique=True,
    max_size=3,
)
budgets = st.builds(
    BudgetLimits, payments_per_hour=caps, per_day=caps, per_week=caps, lifetime=caps
)


@settings(max_examples=400, deadline=None)
@given(
    windows=st.tuples(caps, caps, caps),
    said=sentences,
    above=st.tuples(budgets, budgets),
    history=st.lists(st.tuples(gaps_ms, st.integers(1, 3), st.booleans(), lives_ms), max_size=7),
    wait_ms=gaps_ms,
    amount=st.integers(1, 5),
)
def test_it_is_allowed_at_that_instant_and_not_before(
    windows: tuple[int | None, ...],
    said: list[str],
    above: tuple[BudgetLimits, BudgetLimits],
    history: list[tuple[int, int, bool, int | None]],
    wait_ms: int,
    amount: int,
) -> None:
    in_force = policy(
        limits=limits(**dict(zip(("per_day", "per_week", "per_month"), windows, strict=True))),
        conditions=parse_conditions(sorted(said)),
        valid_until_ms=NOW_MS + LONG_MS,
    )
    bounds, now_ms, paid = Bounds(in_force, *above), NOW_MS, []
    for gap_ms, spent, own, life_ms in history:
        now_ms += gap_ms
        paid.append(Paid(now_ms, spent, own, None if life_ms is None else now_ms + life_ms))
    now_ms += wait_ms
    at_ms = bounds.told(paid, amount, now_ms)
    if at_ms is None:  # neither when anything has left nor when anything is over
        changes = {now_ms, *(each.expires_ms or now_ms for each in paid)}
        changes |= {each.decided_ms + length_ms for each in paid for length_ms in LENGTHS_MS}
        hours = {at + step for at in changes for step in range(0, WEEK_MS, HOUR_MS // 2)}
        half_hours = {at - at % (HOUR_MS // 2) for at in hours} if "only" in str(said) else set()
        for t_ms in changes | half_hours:
            assert t_ms < now_ms or not bounds.allow(paid, amount, t_ms)
        return
    assert bounds.allow(paid, amount, at_ms)
    assert at_ms == now_ms or not bounds.allow(paid, amount, at_ms - 1)
    assert bounds.told(paid, amount, at_ms) == at_ms  # it is still said when it has come


def test_the_first_that_is_enough_decides_and_not_the_first() -> None:
    bounds = Bounds(
        policy(limits=limits(per_day=10), valid_until_ms=NOW_MS + LONG_MS),
        BudgetLimits(),
        BudgetLimits(),
    )
    small, large = (Paid(NOW_MS, amount, True, NOW_MS + life) for amount, life in ((2, 5), (8, 9)))
    assert bounds.told([small, large], 2, NOW_MS) == NOW_MS + 5
    assert bounds.told([small, large], 3, NOW_MS) == NOW_MS + 9
    kept = Paid(NOW_MS, 8, True, None)
    assert bounds.told([small, kept], 3, NOW_MS) == NOW_MS + DAY_MS


def test_what_is_for_a_lifetime_fits_again_when_enough_is_over() -> None:
    bounds = Bounds(
        policy(
            conditions=conditions("at most 2 payments per lifetime"),
            valid_until_ms=NOW_MS + LONG_MS,
        ),
        BudgetLimits(),
        BudgetLimits(lifetime=5),
    )
    own, others = Paid(NOW_MS, 1, True, NOW_MS + 5), Paid(NOW_MS, 4, False, NOW_MS + 9)
    kept = Paid(NOW_MS, 1, True, None)
    assert bounds.told([own, kept, others], 1, NOW_MS) == NOW_MS + 9
    assert bounds.told([own, kept], 1, NOW_MS) == NOW_MS + 5
    assert bounds.told([kept, kept, others], 1, NOW_MS) is None
