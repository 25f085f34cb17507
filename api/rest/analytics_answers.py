"""What agents spent, in the shape that clients of the agent-session API read."""

from collections import Counter
from collections.abc import Mapping

from typing_extensions import TypedDict

from api.rest.answers import Dollars
from api.rest.views import usd
from engine.ledger.analytics import Active, Sums, day_text

TOKENS = ("SOL", "USDC", "USDT")
"""Clients look for these by name, whether or not there are payments of them."""


class DayAnswer(TypedDict):
    """The payments of a day (UTC) that were spent."""

    date: str
    count: int
    volume_usd: Dollars


class AnalyticsAnswer(TypedDict):
    """Payments that were spent, and how many of those that are over were."""

    total_payments: int
    total_volume_usd: Dollars
    average_payment_usd: Dollars
    success_rate: float
    active_sessions: int
    active_delegates: int
    ppp_savings_usd: Dollars
    payments_by_token: dict[str, int]
    payments_by_day: list[DayAnswer]


def analytics_json(
    sums: Sums, active: Active, days: range, symbols: Mapping[str, str]
) -> AnalyticsAnswer:
    """The answer; `symbols` are those of tokens by their CAIP-19 ids, `days` all of the period."""
    count, micro_usd = Counter[int](), Counter[int]()
    by_token = Counter[str]()
    in_vain = 0
    for key, each in sums.items():
        count[key.day] += each.captured
        micro_usd[key.day] += each.micro_usd
        in_vain += each.denied + each.expired
        if each.captured:
            by_token[symbols.get(key.token, key.token)] += each.captured
    spent, volume = count.total(), micro_usd.total()
    return {
        "total_payments": spent,
        "total_volume_usd": usd(volume) or 0,
        "average_payment_usd": usd(volume // spent) or 0 if spent else 0,
        "success_rate": round(spent / (spent + in_vain), 6) if spent else 0,
        "active_sessions": active.sessions,
        "active_delegates": active.delegates,
        "ppp_savings_usd": 0,
        "payments_by_token": dict.fromkeys(TOKENS, 0) | dict(sorted(by_token.items())),
        "payments_by_day": [
            {"date": day_text(day), "count": count[day], "volume_usd": usd(micro_usd[day]) or 0}
            for day in days
        ],
    }
