"""Whether a session may pay at all, at this time, and this merchant with this token on this chain.

Each check answers None when it has nothing against the payment.
"""

import re
from collections.abc import Callable

from engine.policy.conditions import Thing
from engine.policy.decision import Evidence, Standing
from engine.policy.facts import Facts, Finding


def standing(denied: Standing, reason: str) -> Callable[[Facts], Finding | None]:
    """A check that denies what stands so."""
    finding = Finding(reason, {"standing": denied.value})

    def check(facts: Facts) -> Finding | None:
        return finding if facts.standing is denied else None

    return check


def valid_until(facts: Facts) -> Finding | None:
    """A session is over once either clock says so."""
    until_ms = facts.policy.valid_until_ms
    if facts.now_ms < until_ms and facts.chain_time_ms < until_ms:
        return None
    now_ms = max(facts.now_ms, facts.chain_time_ms)
    return Finding("The session has expired.", {"valid_until_ms": until_ms, "now_ms": now_ms})


def valid_from(facts: Facts) -> Finding | None:
    """It has not begun before our clock says so."""
    if facts.now_ms >= facts.policy.valid_from_ms:
        return None
    evidence = {"valid_from_ms": facts.policy.valid_from_ms, "now_ms": facts.now_ms}
    return Finding("The session has not started yet.", evidence)


def active_hours(facts: Facts) -> Finding | None:
    """Its active hours, and those that the operator left it."""
    hours, now_ms = facts.policy.in_force.hours, facts.now_ms
    if hours is None:
        return None
    opens_at_ms = hours.opens_at(now_ms)
    if opens_at_ms == now_ms:
        return None
    evidence: Evidence = {"opens_at_ms": opens_at_ms, "now_ms": now_ms}
    return Finding("The session does not pay at this time of the week.", evidence)


def permissions(facts: Facts) -> Finding | None:
    """Its list of permissions."""
    allowed, permission = facts.policy.permissions, facts.request.permission
    if allowed is None or permission in allowed:
        return None
    evidence: Evidence = {"permission": permission, "allowed_count": len(allowed)}
    return Finding(f"The session has no permission {permission}.", evidence)


def chains(facts: Facts) -> Finding | None:
    """Its list of chains."""
    allowed, chain = facts.policy.chains, facts.request.chain
    if allowed is None or chain in allowed:
        return None
    evidence: Evidence = {"chain": chain, "allowed_count": len(allowed)}
    return Finding(f"The session may not pay on chain {chain}.", evidence)


def tokens(facts: Facts) -> Finding | None:
    """Its list of tokens."""
    allowed, token = facts.policy.tokens, facts.request.token
    if allowed is None or token in allowed:
        return None
    evidence: Evidence = {"token": token, "allowed_count": len(allowed)}
    return Finding(f"The session may not pay with token {token}.", evidence)


def token_price(facts: Facts) -> Finding | None:
    """No price: no amount that a limit in dollars could be held against."""
    if facts.request.token_priced:
        return None
    token = facts.request.token
    return Finding(f"No price in US dollars is configured for token {token}.", {"token": token})


def merchants(facts: Facts) -> Finding | None:
    """Its list of merchants."""
    allowed, merchant = facts.policy.merchants, facts.request.merchant
    if allowed is None or merchant in allowed or facts.request.pay_to in allowed:
        return None
    if merchant is None:
        reason = "The session may only pay listed merchants and the payment names none."
    else:
        reason = f"The session may not pay merchant {merchant}."
    return Finding(reason, {"merchant": merchant, "allowed_count": len(allowed)})


def never_chain(facts: Facts) -> Finding | None:
    """Conditions that rule out a chain."""
    return _never(facts, "chain", facts.request.chain)


def never_token(facts: Facts) -> Finding | None:
    """Conditions that rule out a token."""
    return _never(facts, "token", facts.request.token)


def never_merchant(facts: Facts) -> Finding | None:
    """Conditions that rule out a merchant, by its name or by the account that is paid.

    One that names a host rules it out on every port: the port is the seller's to choose.
    """
    named, account = facts.request.merchant, facts.request.pay_to
    for name in (named, _without_port(named), account):
        if finding := _never(facts, "merchant", name):
            return finding
    return None


def _without_port(merchant: str | None) -> str | None:
    match = None if merchant is None else _WITH_PORT.fullmatch(merchant)
    return None if match is None else match[1]


def _never(facts: Facts, what: Thing, name: str | None) -> Finding | None:
    if name is None or (what, name) not in facts.policy.in_force.never:
        return None
    return Finding(f"The session may never pay {_PAYING[what]} {name}.", {what: name})


_WITH_PORT = re.compile(r"(.+):[0-9]+")
_PAYING = {"chain": "on chain", "token": "with token", "merchant": "merchant"}
