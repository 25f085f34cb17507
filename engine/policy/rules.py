"""Every reason to deny a payment, in one table; the first row that applies decides.

States of the session come first, so that nobody probes the limits of a session that is over. The
approval comes last, so that granting one waives this rule alone and all others still hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.policy.decision import Code, Evidence, PaymentRequest, Policy, Standing
from engine.policy.money import SUM_MAX_MICRO_USD, format_usd
from engine.policy.windows import RollingWindows


class Facts(NamedTuple):
    """All that a rule may look at. `used` is micro-USD inside each window at `now_ms`."""

    policy: Policy
    standing: Standing
    windows: RollingWindows
    used: tuple[int, ...]
    request: PaymentRequest
    now_ms: int
    chain_time_ms: int


class Finding(NamedTuple):
    """Why a rule denies: one sentence for people, and the facts behind it."""

    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; `check` answers None when the rule has nothing against the payment."""

    name: str
    code: Code
    meaning: str
    check: Callable[[Facts], Finding | None]


def _standing(denied: Standing, reason: str) -> Callable[[Facts], Finding | None]:
    finding = Finding(reason, {"standing": denied.value})

    def check(facts: Facts) -> Finding | None:
        return finding if facts.standing is denied else None

    return check


def _valid_until(facts: Facts) -> Finding | None:
    now_ms = max(facts.now_ms, facts.chain_time_ms)
    if now_ms < facts.policy.valid_until_ms:
        return None
    evidence = {"valid_until_ms": facts.policy.valid_until_ms, "now_ms": now_ms}
    return Finding("The session has expired.", evidence)


def _valid_from(facts: Facts) -> Finding | None:
    if facts.now_ms >= facts.policy.valid_from_ms:
        return None
    evidence = {"valid_from_ms": facts.policy.valid_from_ms, "now_ms": facts.now_ms}
    return Finding("The session has not started yet.", evidence)


def _permissions(facts: Facts) -> Finding | None:
    allowed, permission = facts.policy.permissions, facts.request.permission
    if allowed is None or permission in allowed:
        return None
    evidence: Evidence = {"permission": permission, "allowed_count": len(allowed)}
    return Finding(f"The session has no permission {permission}.", evidence)


def _chains(facts: Facts) -> Finding | None:
    allowed, chain = facts.policy.chains, facts.request.chain
    if allowed is None or chain in allowed:
        return None
    evidence: Evidence = {"chain": chain, "allowed_count": len(allowed)}
    return Finding(f"The session may not pay on chain {chain}.", evidence)


def _tokens(facts: Facts) -> Finding | None:
    allowed, token = facts.policy.tokens, facts.request.token
    if allowed is None or token in allowed:
        return None
    evidence: Evidence = {"token": token, "allowed_count": len(allowed)}
    return Finding(f"The session may not pay with token {token}.", evidence)


def _token_price(facts: Facts) -> Finding | None:
    if facts.request.token_priced:
        return None
    token = facts.request.token
    return Finding(f"No price in US dollars is configured for token {token}.", {"token": token})


def _merchants(facts: Facts) -> Finding | None:
    allowed, merchant = facts.policy.merchants, facts.request.merchant
    if allowed is None or merchant in allowed:
        return None
    if merchant is None:
        reason = "The session may only pay listed merchants and the payment names none."
    else:
        reason = f"The session may not pay merchant {merchant}."
    return Finding(reason, {"merchant": merchant, "allowed_count": len(allowed)})


def _per_transaction(facts: Facts) -> Finding | None:
    limit, amount = facts.policy.limits.per_transaction, facts.request.amount
    if limit is None or amount <= limit:
        return None
    reason = f"{format_usd(amount)} is above the limit of {format_usd(limit)} per payment."
    return Finding(reason, {"limit": limit, "requested": amount})


def _per_day(facts: Facts) -> Finding | None:
    return _window(facts, 0, facts.policy.limits.per_day, "24 hours")


def _per_week(facts: Facts) -> Finding | None:
    return _window(facts, 1, facts.policy.limits.per_week, "7 days")


def _per_month(facts: Facts) -> Finding | None:
    return _window(facts, 2, facts.policy.limits.per_month, "30 days")


def _window(facts: Facts, window: int, limit: int | None, span: str) -> Finding | None:
    used, amount = facts.used[window], facts.request.amount
    if limit is None:
        limit = SUM_MAX_MICRO_USD
    if used + amount <= limit:
        return None
    windows = facts.windows
    reason = (
        f"{format_usd(amount)} on top of {format_usd(used)} already used is above "
        f"the limit of {format_usd(limit)} in {span}."
    )
    evidence: Evidence = {
        "limit": limit,
        "used": used,
        "requested": amount,
        "window_ms": windows.lengths_ms[window],
        "retry_at_ms": windows.frees_at(window, used + amount - limit, facts.now_ms),
    }
    return Finding(reason, evidence)


def _approval_above(facts: Facts) -> Finding | None:
    above, amount = facts.policy.limits.approval_above, facts.request.amount
    if above is None or amount <= above:
        return None
    reason = f"{format_usd(amount)} is above {format_usd(above)} and needs an approval."
    return Finding(reason, {"approval_above": above, "requested": amount})


WINDOW_RULES = frozenset(("per_day", "per_week", "per_month"))
"""The names of the rules whose denial says that a limit is used up."""

RULES = (
    Rule(
        "revoked",
        "SESSION_REVOKED",
        "The session was ended for good.",
        _standing(Standing.REVOKED, "The session is revoked."),
    ),
    Rule(
        "valid_until",
        "SESSION_EXPIRED",
        "The decision falls at or after the end of the session.",
        _valid_until,
    ),
    Rule(
        "paused",
        "SESSION_PAUSED",
        "The session is stopped and can be resumed.",
        _standing(Standing.PAUSED, "The session is paused."),
    ),
    Rule(
        "anchored",
        "SESSION_NOT_ANCHORED",
        "The registration of the session is not yet confirmed on the chain.",
        _standing(Standing.PENDING, "The session is not yet confirmed on the chain."),
    ),
    Rule(
        "valid_from",
        "SESSION_NOT_STARTED",
        "The decision falls before the start of the session.",
        _valid_from,
    ),
    Rule(
        "parameters",
        "PARAMETERS_MISMATCH",
        "The parameters of the session do not hash to what the chain holds.",
        _standing(Standing.MISMATCH, "The session's parameters do not match the chain."),
    ),
    Rule(
        "permissions",
        "PERMISSION_NOT_ALLOWED",
        "The session has permissions and not this one.",
        _permissions,
    ),
    Rule("chains", "CHAIN_NOT_ALLOWED", "The session has chains and not this one.", _chains),
    Rule("tokens", "TOKEN_NOT_ALLOWED", "The session has tokens and not this one.", _tokens),
    Rule(
        "token_price",
        "TOKEN_NOT_ALLOWED",
        "No price in US dollars is configured for the token.",
        _token_price,
    ),
    Rule(
        "merchants",
        "MERCHANT_NOT_ALLOWED",
        "The session has merchants, and the payment names another or none.",
        _merchants,
    ),
    Rule(
        "per_transaction",
        "LIMIT_EXCEEDED",
        "The amount is above the limit for one payment.",
        _per_transaction,
    ),
    Rule("per_day", "LIMIT_EXCEEDED", "Over the limit of the last 24 hours.", _per_day),
    Rule("per_week", "LIMIT_EXCEEDED", "Over the limit of the last 7 days.", _per_week),
    Rule("per_month", "LIMIT_EXCEEDED", "Over the limit of the last 30 days.", _per_month),
    Rule(
        "approval_above",
        "APPROVAL_REQUIRED",
        "The amount is above what the session may pay without an approval.",
        _approval_above,
    ),
)
"""By precedence: when several rows apply, the decision names the first."""
