"""Budgets above the session: what an agent, or a whole workspace, may spend in all its sessions."""

from dataclasses import dataclass
from typing import Literal

from engine.policy.conditions import Cap, Per
from engine.policy.decision import PaymentRequest, Policy
from engine.policy.spending import Meters
from engine.policy.windows import Entry

BUDGET_LIMITS: dict[str, tuple[Literal["payments", "sum"], Per]] = {
    "payments_per_hour": ("payments", "hour"),
    "payments_per_day": ("payments", "day"),
    "per_day": ("sum", "day"),
    "per_week": ("sum", "week"),
    "per_month": ("sum", "month"),
    "lifetime": ("sum", "lifetime"),
}
"""What each limit of a budget bounds, by precedence."""

LIMIT_NAMES = {**BUDGET_LIMITS, "payments_per_lifetime": ("payments", "lifetime")}
"""The same of all that can bound several sessions: one that delegates may have this limit, too."""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits in payments and in micro-USD, over rolling windows; None means unlimited."""

    payments_per_hour: int | None = None
    payments_per_day: int | None = None
    per_day: int | None = None
    per_week: int | None = None
    per_month: int | None = None
    lifetime: int | None = None

    def caps(self) -> tuple[Cap, ...]:
        """The limits that there are."""
        limits = ((getattr(self, name), of, per) for name, (of, per) in BUDGET_LIMITS.items())
        return tuple(Cap(of, None, limit, per) for limit, of, per in limits if limit is not None)


def budget_rule(budget_id: str) -> str:
    """The name of the rule that enforces a budget.

    Raises:
        ValueError: `budget_id` is neither `workspace` nor `agent:` or `session:` and an id.
    """
    if budget_id == "workspace":
        return "workspace_budget"
    if budget_id.startswith("agent:"):
        return "agent_budget"
    if budget_id.startswith("session:"):
        return "ancestor_budget"
    raise ValueError(f"{budget_id} is not the id of a budget")


class Budget:
    """The payments of all sessions under one budget. Feed it and rebuild it as a `Spending`.

    `id` is `workspace`, or `agent:` and the agent's id, or `session:` and the id of a session that
    delegates: then its limits are that session's. `rule` is the name of the rule that enforces it.
    When its limits change, make another.
    """

    __slots__ = ("id", "meters", "rule")

    def __init__(self, budget_id: str, limits: "BudgetLimits | Policy") -> None:
        self.id = budget_id
        self.rule = budget_rule(budget_id)
        self.meters = Meters(limits.caps() if isinstance(limits, BudgetLimits) else _caps(limits))

    def add(self, decided_ms: int, request: PaymentRequest) -> Entry:
        """Count an allowed payment."""
        entry = Entry(decided_ms, request.amount, 0)
        entry.parts = self.meters.add(decided_ms, request)
        return entry

    def reduce(self, entry: Entry, to_amount: int) -> None:
        """Count only `to_amount` micro-USD of a payment, as `Spending.reduce`."""
        assert 0 <= to_amount <= entry.amount, "an entry only ever gets smaller"
        entry.amount = to_amount
        for meter, part in entry.parts:
            meter.reduce(part, to_amount)


def _caps(policy: Policy) -> tuple[Cap, ...]:
    """All that bounds a session over time."""
    limits = BudgetLimits(
        per_day=policy.limits.per_day,
        per_week=policy.limits.per_week,
        per_month=policy.limits.per_month,
    )
    over_time = [cap for cap in policy.in_force.caps if cap.per != "transaction"]
    return tuple(sorted((*limits.caps(), *over_time), key=lambda cap: cap.of_what))
