"""What is told of budgets above sessions."""

from typing_extensions import TypedDict

from api.rest.answers import Dollars, built_late


class BudgetLimitsAnswer(TypedDict):
    """Limits of a budget over rolling windows; null is unlimited."""

    max_payments_per_hour: int | None
    max_payments_per_day: int | None
    max_per_day: Dollars | None
    max_per_week: Dollars | None
    max_per_month: Dollars | None
    max_lifetime: Dollars | None


class BudgetUsedAnswer(TypedDict):
    """What is used of each limit now; null where it is unlimited."""

    payments_per_hour: int | None
    payments_per_day: int | None
    per_day: Dollars | None
    per_week: Dollars | None
    per_month: Dollars | None
    lifetime: Dollars | None


class BudgetAnswer(TypedDict):
    """What an agent, or the workspace, may spend in all its sessions together, and what of it is
    used now. What is held counts. `used` is null where it cannot be told at this moment."""

    id: str
    agent_id: str | None
    limits: BudgetLimitsAnswer
    used: BudgetUsedAnswer | None
    version: int
    updated_at: str


built_late(list(globals().values()))
