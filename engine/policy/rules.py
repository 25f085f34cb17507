"""Every reason to deny a payment, in one table; the first row that applies decides.

States of the session come first, so that nobody probes the limits of a session that is over. The
approval comes last, so that granting one waives this rule alone and all others still hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.policy import limit_checks, session_checks
from engine.policy.conditions import Cap
from engine.policy.decision import Code, Policy, Standing
from engine.policy.facts import Facts, Finding
from engine.policy.limit_checks import budget, capped, capped_payee
from engine.policy.session_checks import standing


class Shape(NamedTuple):
    """What a policy bounds at all, however far, and what else makes rules matter: many sessions
    have one shape.

    `never` has the kinds of things that conditions rule out, `caps` what they cap over time.
    """

    permissions: bool
    merchants: bool
    tokens: bool
    chains: bool
    per_transaction: bool
    approval_above: bool
    hours: bool
    never: frozenset[str]
    caps: frozenset[str]
    token_priced: bool
    budgets: bool


def shape_of(policy: Policy, *, token_priced: bool, budgets: bool) -> Shape:
    """The shape of a policy, where a token has a price or none, with budgets above or without."""
    in_force = policy.in_force
    limit = policy.limits.per_transaction
    return Shape(
        permissions=policy.permissions is not None,
        merchants=policy.merchants is not None,
        tokens=policy.tokens is not None,
        chains=policy.chains is not None,
        per_transaction=limit is not None or any(map(_per_transaction, in_force.caps)),
        approval_above=policy.limits.approval_above is not None,
        hours=in_force.hours is not None,
        never=frozenset(thing for thing, _ in in_force.never),
        caps=frozenset(cap.of for cap in in_force.caps if not _per_transaction(cap)),
        token_priced=token_priced,
        budgets=budgets,
    )


def _per_transaction(cap: Cap) -> bool:
    return cap.per == "transaction"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; `check` answers None when the rule has nothing against the payment.

    `bounds` says whether `check` could ever deny a payment to an active session of such a shape.
    """

    name: str
    code: Code
    meaning: str
    check: Callable[[Facts], Finding | None]
    bounds: Callable[[Shape], bool]
    waits: bool = False
    """Whether time alone can make it allow the payment."""


def _always(_: Shape) -> bool:
    return True


def _not_while_active(_: Shape) -> bool:
    return False


def _budgets(shape: Shape) -> bool:
    return shape.budgets


def _never(what: str) -> Callable[[Shape], bool]:
    return lambda shape: what in shape.never


def _caps(of: str) -> Callable[[Shape], bool]:
    return lambda shape: of in shape.caps


RULES = (
    Rule(
        "revoked",
        "SESSION_REVOKED",
        "The session was ended for good.",
        standing(Standing.REVOKED, "The session is revoked."),
        bounds=_not_while_active,
    ),
    Rule(
        "valid_until",
        "SESSION_EXPIRED",
        "The decision falls at or after the end of the session.",
        session_checks.valid_until,
        bounds=_always,
    ),
    Rule(
        "paused",
        "SESSION_PAUSED",
        "The session is stopped and can be resumed.",
        standing(Standing.PAUSED, "The session is paused."),
        bounds=_not_while_active,
    ),
    Rule(
        "anchored",
        "SESSION_NOT_ANCHORED",
        "The registration of the session is not yet confirmed on the chain.",
        standing(Standing.PENDING, "The session is not yet confirmed on the chain."),
        bounds=_not_while_active,
    ),
    Rule(
        "valid_from",
        "SESSION_NOT_STARTED",
        "The decision falls before the start of the session.",
        session_checks.valid_from,
        bounds=_always,
        waits=True,
    ),
    Rule(
        "active_hours",
        "OUTSIDE_ACTIVE_HOURS",
        "The decision falls outside the active hours of the session.",
        session_checks.active_hours,
        bounds=lambda shape: shape.hours,
        waits=True,
    ),
    Rule(
        "parameters",
        "PARAMETERS_MISMATCH",
        "The parameters of the session do not hash to what the chain holds.",
        standing(Standing.MISMATCH, "The session's parameters do not match the chain."),
        bounds=_not_while_active,
    ),
    Rule(
        "permissions",
        "PERMISSION_NOT_ALLOWED",
        "The session has permissions and not this one.",
        session_checks.permissions,
        bounds=lambda shape: shape.permissions,
    ),
    Rule(
        "chains",
        "CHAIN_NOT_ALLOWED",
        "The session has chains and not this one.",
        session_checks.chains,
        bounds=lambda shape: shape.chains,
    ),
    Rule(
        "never_chain",
        "CHAIN_NOT_ALLOWED",
        "A condition rules the chain out.",
        session_checks.never_chain,
        bounds=_never("chain"),
    ),
    Rule(
        "tokens",
        "TOKEN_NOT_ALLOWED",
        "The session has tokens and not this one.",
        session_checks.tokens,
        bounds=lambda shape: shape.tokens,
    ),
    Rule(
        "never_token",
        "TOKEN_NOT_ALLOWED",
        "A condition rules the token out.",
        session_checks.never_token,
        bounds=_never("token"),
    ),
    Rule(
        "token_price",
        "TOKEN_NOT_ALLOWED",
        "No price in US dollars is configured for the token.",
        session_checks.token_price,
        bounds=lambda shape: not shape.token_priced,
    ),
    Rule(
        "merchants",
        "MERCHANT_NOT_ALLOWED",
        "The session has merchants, and the payment names another or none.",
        session_checks.merchants,
        bounds=lambda shape: shape.merchants,
    ),
    Rule(
        "never_merchant",
        "MERCHANT_NOT_ALLOWED",
        "A condition rules the merchant out.",
        session_checks.never_merchant,
        bounds=_never("merchant"),
    ),
    Rule(
        "per_transaction",
        "LIMIT_EXCEEDED",
        "The amount is above the limit for one payment.",
        limit_checks.per_transaction,
        bounds=lambda shape: shape.per_transaction,
    ),
    Rule(
        "payments",
        "LIMIT_EXCEEDED",
        "One more payment than a condition allows.",
        capped("payments", lambda _: None),
        bounds=_caps("payments"),
        waits=True,
    ),
    Rule(
        "per_day",
        "LIMIT_EXCEEDED",
        "Over the limit of the last 24 hours.",
        limit_checks.per_day,
        bounds=_always,
        waits=True,
    ),
    Rule(
        "per_week",
        "LIMIT_EXCEEDED",
        "Over the limit of the last 7 days.",
        limit_checks.per_week,
        bounds=_always,
        waits=True,
    ),
    Rule(
        "per_month",
        "LIMIT_EXCEEDED",
        "Over the limit of the last 30 days.",
        limit_checks.per_month,
        bounds=_always,
        waits=True,
    ),
    Rule(
        "lifetime",
        "LIMIT_EXCEEDED",
        "Over the limit of the session's whole life.",
        capped("sum", lambda _: None),
        bounds=_caps("sum"),
        waits=True,
    ),
    Rule(
        "token_cap",
        "LIMIT_EXCEEDED",
        "Over what a condition allows with the token.",
        capped("token", lambda facts: facts.request.token),
        bounds=_caps("token"),
        waits=True,
    ),
    Rule(
        "merchant_cap",
        "LIMIT_EXCEEDED",
        "Over what a condition allows to the merchant.",
        capped_payee,
        bounds=_caps("merchant"),
        waits=True,
    ),
    Rule(
        "ancestor_budget",
        "LIMIT_EXCEEDED",
        "Over a limit of a session that delegates, in it and all beneath it together.",
        budget("ancestor_budget"),
        bounds=_budgets,
        waits=True,
    ),
    Rule(
        "agent_budget",
        "LIMIT_EXCEEDED",
        "Over a limit of the agent, in all its sessions together.",
        budget("agent_budget"),
        bounds=_budgets,
        waits=True,
    ),
    Rule(
        "workspace_budget",
        "LIMIT_EXCEEDED",
        "Over a limit of the workspace, in all its sessions together.",
        budget("workspace_budget"),
        bounds=_budgets,
        waits=True,
    ),
    Rule(
        "approval_above",
        "APPROVAL_REQUIRED",
        "The amount is above what the session may pay without an approval.",
        limit_checks.approval_above,
        bounds=lambda shape: shape.approval_above,
    ),
)
"""By precedence: when several rows apply, the decision names the first."""

WINDOW_RULES = frozenset(
    rule.name for rule in RULES if rule.code == "LIMIT_EXCEEDED" and rule.name != "per_transaction"
)
"""The names of the rules whose denial says that a limit is used up."""

BUDGET_RULES = ("ancestor_budget", "agent_budget", "workspace_budget")
"""The names of the rules that look beyond the session."""
