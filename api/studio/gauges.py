"""How much of limits is used, as pages show it: of a session, its conditions, budgets above it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.rest.views import usd
from engine.policy.conditions import Cap
from engine.policy.decide import Left
from engine.policy.limits import Limits
from engine.policy.spending import Gauge
from engine.workspaces.budgets import WORKSPACE_BUDGET

NEAR_LIMIT = 0.8
WINDOWS = (("per_day", "24 hours"), ("per_week", "7 days"), ("per_month", "30 days"))
EVER = "ever"
_SPANS = {
    "hour": "1 hour",
    "day": "24 hours",
    "week": "7 days",
    "month": "30 days",
    "lifetime": EVER,
}


def utilisation(limits: Limits, left: Left) -> list[dict[str, Any]]:
    """How much of each window's limit, and of one for the whole life, is used now; a session
    without limits has none."""
    found = []
    for name, window in WINDOWS:
        limit, remaining = getattr(limits, name), getattr(left.remaining, name)
        if limit is not None and remaining is not None:
            found.append(_in_dollars(window, limit, limit - remaining))
    found += [
        _in_dollars(EVER, cap.at_most, cap.at_most - rest)
        for cap, rest in left.caps
        if (cap.of, cap.per) == ("sum", "lifetime")
    ]
    return found


def capped(left: Left) -> list[dict[str, Any]]:
    """The same of each condition that caps something over time, by its sentence."""
    return [{**_told(cap, cap.at_most - rest), "name": str(cap)} for cap, rest in left.caps]


def budgeted(used: Mapping[str, Sequence[Gauge]]) -> list[dict[str, Any]]:
    """The same of budgets: of agents by their ids, and of the workspace (None)."""
    return [
        {
            "id": budget_id,
            "agent_id": agent_of(budget_id),
            "limits": [_told(gauge.cap, gauge.used) for gauge in gauges],
        }
        for budget_id, gauges in used.items()
    ]


def near(budgets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which budgets are nearly used up, in words."""
    return [
        f"{each['share']:.0%} of the {'agent' if budget['agent_id'] else 'workspace'}'s budget "
        f"used: {each['name']}"
        for budget in budgets
        for each in budget["limits"]
        if each["near"]
    ]


def agent_of(budget_id: str) -> str | None:
    """Whose budget it is; None: the workspace's."""
    return None if budget_id == WORKSPACE_BUDGET else budget_id.partition(":")[2]


def _in_dollars(window: str, limit: int, used: int) -> dict[str, Any]:
    used = max(0, used)
    share = round(used / limit, 4) if limit else 1.0
    return {
        "window": window,
        "limit_usd": usd(limit),
        "used_usd": usd(used),
        "share": min(1.0, share),
        "near": share >= NEAR_LIMIT,
    }


def _told(cap: Cap, used: int) -> dict[str, Any]:
    counts = cap.of == "payments"
    share = round(max(0, used) / cap.at_most, 4) if cap.at_most else 1.0
    span = _SPANS[cap.per]
    return {
        "name": f"payments in {span}" if counts and cap.per != "lifetime" else span,
        "unit": "payments" if counts else "USD",
        "limit": cap.at_most if counts else usd(cap.at_most),
        "used": max(0, used) if counts else usd(max(0, used)),
        "share": min(1.0, share),
        "near": share >= NEAR_LIMIT,
    }
