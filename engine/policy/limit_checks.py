"""Whether an amount fits into the limits, of the session and above it.

Each check answers None when it has nothing against the payment. An amount equal to what is left
fits.
"""

from collections.abc import Callable, Iterator

from engine.policy.conditions import WINDOW_MS, Cap, Per
from engine.policy.decision import Evidence, PaymentRequest, Policy
from engine.policy.facts import Facts, Finding
from engine.policy.money import SUM_MAX_MICRO_USD, format_usd
from engine.policy.spending import Gauge

_SPAN = {"hour": "1 hour", "day": "24 hours", "week": "7 days", "month": "30 days"}


def per_transaction(facts: Facts) -> Finding | None:
    """The limit for one payment; then those for one with this token, or to this merchant."""
    limit, amount = facts.policy.limits.per_transaction, facts.request.amount
    if limit is not None and amount > limit:
        reason = f"{format_usd(amount)} is above the limit of {format_usd(limit)} per payment."
        return Finding(reason, {"limit": limit, "requested": amount})
    for cap in facts.policy.in_force.caps:
        if cap.per == "transaction" and amount > cap.at_most and concerns(cap, facts.request):
            reason = (
                f"{format_usd(amount)} is above the limit of {format_usd(cap.at_most)} "
                f"per payment{_whose(cap)}."
            )
            evidence: Evidence = {
                "limit": cap.at_most,
                "requested": amount,
                "condition": str(cap),
            }
            return Finding(reason, evidence)
    return None


def concerns(cap: Cap, request: PaymentRequest) -> bool:
    """Whether the payment is of the kind that a cap counts."""
    if cap.of == "token":
        return cap.name == request.token
    return cap.of != "merchant" or cap.name in (request.merchant, request.pay_to)


def most_at_once(policy: Policy, request: PaymentRequest) -> int | None:
    """The most that a payment may be which differs from `request` in its amount alone."""
    caps = (cap for cap in policy.in_force.caps if cap.per == "transaction")
    found = [cap.at_most for cap in caps if concerns(cap, request)]
    if policy.limits.per_transaction is not None:
        found.append(policy.limits.per_transaction)
    return min(found, default=None)


def per_day(facts: Facts) -> Finding | None:
    """The session's last 24 hours."""
    return _window(facts, 0, facts.policy.limits.per_day)


def per_week(facts: Facts) -> Finding | None:
    """The session's last 7 days."""
    return _window(facts, 1, facts.policy.limits.per_week)


def per_month(facts: Facts) -> Finding | None:
    """The session's last 30 days."""
    return _window(facts, 2, facts.policy.limits.per_month)


def _window(facts: Facts, window: int, limit: int | None) -> Finding | None:
    if limit is None:
        limit = SUM_MAX_MICRO_USD
    if facts.used[window] + facts.request.amount <= limit:
        return None
    return over(session_gauge(facts, window), facts.now_ms, {})


def session_gauge(facts: Facts, window: int) -> Gauge:
    """The session's day, week or month, by its place among the windows.

    Without a limit it holds `SUM_MAX_MICRO_USD`: a larger sum has no place in a record.
    """
    limits, windows = facts.policy.limits, facts.spending.windows
    limit = (limits.per_day, limits.per_week, limits.per_month)[window]
    cap = Cap("sum", None, SUM_MAX_MICRO_USD if limit is None else limit, _PERS[window])
    return Gauge(cap, facts.used[window], facts.request.amount, windows, window, windows)


def capped(of: str, name: Callable[[Facts], str | None]) -> Callable[[Facts], Finding | None]:
    """A check of the conditions that cap one kind of payments over time."""

    def check(facts: Facts) -> Finding | None:
        meter = facts.spending.meters.get(of, name(facts))
        if meter is None:
            return None
        for gauge in meter.gauges(facts.request.amount, facts.now_ms):
            if gauge.over:
                return over(gauge, facts.now_ms, {"condition": str(gauge.cap)})
        return None

    return check


def capped_payee(facts: Facts) -> Finding | None:
    """The conditions that cap what goes to one payee, under either of its names."""
    return _TO_MERCHANT(facts) or _TO_ACCOUNT(facts)


def budget(rule: str) -> Callable[[Facts], Finding | None]:
    """A check of the budgets that a rule enforces, in the order in which they were given."""

    def check(facts: Facts) -> Finding | None:
        for id_, gauge in budget_gauges(facts, rule):
            if gauge.over:
                about: Evidence = {"budget": id_, "name": gauge.cap.limit_name}
                return over(gauge, facts.now_ms, about)
        return None

    return check


def budget_gauges(facts: Facts, rule: str) -> Iterator[tuple[str, Gauge]]:
    """Every limit of every budget that a rule enforces."""
    request = facts.request
    for each in facts.budgets:
        if each.rule == rule:
            for meter in each.meters.concerned(request):
                for gauge in meter.gauges(request.amount, facts.now_ms):
                    yield each.id, gauge


def approval_above(facts: Facts) -> Finding | None:
    """The amount above which only an approval lets a payment pass."""
    above, amount = facts.policy.limits.approval_above, facts.request.amount
    if above is None or amount <= above or facts.approved:
        return None
    reason = f"{format_usd(amount)} is above {format_usd(above)} and needs an approval."
    return Finding(reason, {"approval_above": above, "requested": amount})


def over(gauge: Gauge, now_ms: int, about: Evidence) -> Finding:
    """Why a payment does not fit into a gauge; `about` says more of whose it is.

    Several sessions without limits can have used more together than a record can hold a number of:
    then it tells the largest, which no limit is above either.
    """
    used = min(gauge.used, SUM_MAX_MICRO_USD)
    return over_finding(gauge.cap, used, gauge.requested, gauge.fits_at(now_ms), about)


def over_finding(
    cap: Cap, used: int, requested: int, retry_at_ms: int | None, about: Evidence
) -> Finding:
    """The same from what the evidence holds; micro-USD, or payments."""
    whose = f" of budget {about['budget']}" if "budget" in about else _whose(cap)
    span = f"{_SPAN[cap.per]}{whose}" if cap.per in _SPAN else f"all{whose}"
    if cap.of == "payments":
        reason = f"A payment on top of {used} is above the limit of {cap.at_most} in {span}."
    else:
        reason = (
            f"{format_usd(requested)} on top of {format_usd(used)} already used is above "
            f"the limit of {format_usd(cap.at_most)} in {span}."
        )
    evidence: Evidence = {
        **about,
        "limit": cap.at_most,
        "used": used,
        "requested": requested,
        "window_ms": WINDOW_MS[cap.per],
        "retry_at_ms": retry_at_ms,
    }
    return Finding(reason, evidence)


def _whose(cap: Cap) -> str:
    return "" if cap.name is None else f" for {cap.of} {cap.name}"


_PERS: tuple[Per, ...] = ("day", "week", "month")
_TO_MERCHANT = capped("merchant", lambda facts: facts.request.merchant)
_TO_ACCOUNT = capped("merchant", lambda facts: facts.request.pay_to)
