"""What callers get of session keys: a session's own key, and what the session's limits leave it.

Clients link a session key, which has a budget for its life, to a session, which has limits over
days, weeks and months. Here both are one session: its lifetime limit is the key's budget.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import TypedDict

from api.rest.answers import Dollars
from api.rest.views import time_text, usd
from engine.audit.replay import LIVE_STATES
from engine.policy.conditions import Cap
from engine.policy.decide import Left
from engine.policy.decision import PaymentRequest
from engine.policy.explain import Explanation
from engine.policy.limit_checks import most_at_once
from engine.policy.money import usd_number
from engine.sessions.session import SessionView

_DAY_MS = 86_400_000
_TODAY = "per_day"


class CheckedPayment(TypedDict):
    """Whether an amount could be paid now, in USDC, to `merchant_id` or to nobody who is named.

    `effective_limit` is the least that any limit on such a payment leaves, also the one for one
    payment, and 0 without a payment left; null is unlimited. What else can deny it, and the
    threshold above which it needs an approval, is in `allowed` and `reason` alone.
    `session_remaining_today` is what the day leaves and `session_key_remaining` what all others
    over time do.
    """

    allowed: bool
    reason: str | None
    effective_limit: Dollars | None
    session_key_remaining: Dollars | None
    session_remaining_today: Dollars | None


class LinkedSession(TypedDict):
    """The session whose key it is.

    `effective_limit` is the least that its limits on all payments leave, and 0 without a payment
    left; what conditions say of one token or merchant, and budgets above it, `check-payment` tells.
    """

    session_id: str
    agent_id: str
    is_active: bool
    max_per_transaction: Dollars | None
    remaining_today: Dollars | None
    remaining_this_week: Dollars | None
    remaining_this_month: Dollars | None
    effective_limit: Dollars | None


class SecurityStatus(TypedDict):
    """Nothing: no device holds the key."""

    device_fingerprint_matched: None
    recent_security_events: list[Any]
    last_used_at: None


class SessionKeyStatus(TypedDict):
    """A session's key. The amounts are of the limit for its whole life, null without one."""

    session_key_id: str
    is_active: bool
    is_approved: bool
    limit_usdc: Dollars | None
    used_amount_usdc: Dollars | None
    remaining_usdc: Dollars | None
    expires_at: str
    days_until_expiry: int
    security_status: SecurityStatus
    linked_session: LinkedSession


class SessionKeyStats(TypedDict):
    """Sums over the keys that are listed; the amounts are of those with a limit for their life."""

    total_keys: int
    active_keys: int
    total_limit_usdc: Dollars
    total_used_usdc: Dollars


class SessionKeys(TypedDict):
    """The keys of sessions, the newest first; `merchant_id` is the workspace."""

    session_keys: list[SessionKeyStatus]
    stats: SessionKeyStats
    merchant_id: str


class SessionKeyRevoked(TypedDict):
    """The session is ended, and its key pays nothing more."""

    message: str
    session_key_id: str
    note: str


def checked_json(view: SessionView, request: PaymentRequest, found: Explanation) -> CheckedPayment:
    """A payment of a session that was only tried."""
    # Its day is also that of the budget that it spends with those beneath it.
    its_own = (None, f"session:{view.id}")
    today, others = list[int](), list[int]()
    for limit in found.limits:
        if limit.unit == "payments":
            others += [0] if limit.left == 0 else []
        elif limit.name == _TODAY and limit.budget in its_own:
            today.append(limit.left)
        else:
            others.append(limit.left)
    decision = found.decision
    return {
        "allowed": decision.allowed,
        "reason": None if decision.allowed else decision.reason,
        "effective_limit": _least((*today, *others, most_at_once(view.policy, request))),
        "session_key_remaining": _least(others),
        "session_remaining_today": _least(today),
    }


def status_json(view: SessionView, left: Left, now_ms: int) -> SessionKeyStatus:
    """The key of a session, as it is at `now_ms`."""
    remaining, limits = left.remaining, view.policy.limits
    active = view.state == "active" and now_ms < view.expires_ms
    budget, rest = _of_life(left)
    limit = None if budget is None else budget.at_most
    each_window = remaining.per_day, remaining.per_week, remaining.per_month
    none_left = 0 if any(cap.of == "payments" and more == 0 for cap, more in left.caps) else None
    live = view.state in LIVE_STATES
    return {
        "session_key_id": view.id,
        "is_active": active,
        "is_approved": view.state != "awaiting_consent",
        "limit_usdc": usd(limit),
        "used_amount_usdc": None if limit is None or rest is None else usd(limit - rest),
        "remaining_usdc": usd(rest),
        "expires_at": time_text(view.expires_ms),
        "days_until_expiry": max(0, view.expires_ms - now_ms) // _DAY_MS if live else 0,
        "security_status": {
            "device_fingerprint_matched": None,
            "recent_security_events": [],
            "last_used_at": None,
        },
        "linked_session": {
            "session_id": view.id,
            "agent_id": view.agent_id,
            "is_active": active,
            "max_per_transaction": usd(limits.per_transaction),
            "remaining_today": usd(remaining.per_day),
            "remaining_this_week": usd(remaining.per_week),
            "remaining_this_month": usd(remaining.per_month),
            "effective_limit": _least((*each_window, rest, limits.per_transaction, none_left)),
        },
    }


def keys_json(
    workspace_id: str, found: Sequence[tuple[SessionView, Left]], now_ms: int
) -> SessionKeys:
    """The keys of these sessions, as they are at `now_ms`."""
    keys = [status_json(view, left, now_ms) for view, left in found]
    limited = [
        (budget.at_most, rest)
        for budget, rest in (_of_life(left) for _, left in found)
        if budget is not None and rest is not None
    ]
    return {
        "session_keys": keys,
        "stats": {
            "total_keys": len(keys),
            "active_keys": sum(key["is_active"] for key in keys),
            "total_limit_usdc": usd_number(sum(limit for limit, _ in limited)),
            "total_used_usdc": usd_number(sum(limit - rest for limit, rest in limited)),
        },
        "merchant_id": workspace_id,
    }


def _of_life(left: Left) -> tuple[Cap, int] | tuple[None, None]:
    """The limit for a session's whole life that leaves the least, and what that is."""
    found = [(cap, rest) for cap, rest in left.caps if (cap.of, cap.per) == ("sum", "lifetime")]
    return min(found, key=lambda each: each[1], default=(None, None))


def _least(amounts: Iterable[int | None]) -> Dollars | None:
    return usd(min((each for each in amounts if each is not None), default=None))
