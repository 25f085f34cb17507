"""Deciding again where the merchants of payments are withheld.

Without them no rule on merchants can be asked. A session's policy without those rules allows more
and nothing less, so every other rule is replayed: what it denies must have been denied, by the rule
recorded or by one on merchants that comes before it. What was denied by a rule on merchants, or by
a budget, whose facts can name one, is taken as told once every rule before it is found to allow the
payment; it must be one that the policy has.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine.audit import canonical
from engine.audit.disclosure import GROUPS, split
from engine.audit.report import difference
from engine.audit.usage import Asked, Usage, decide_without_budgets
from engine.policy.conditions import Cap, Condition, Never
from engine.policy.decide import remaining
from engine.policy.decision import Decision, Policy
from engine.policy.rules import BUDGET_RULES, RULES

_PLACES = {rule.name: place for place, rule in enumerate(RULES)}
_GROUP = GROUPS["payment.decided"]["merchant"]


def without_merchants(policy: Policy) -> Policy:
    """The policy without its rules on merchants."""
    return replace(
        policy,
        merchants=None,
        conditions=_seen(policy.conditions),
        restrictions=_seen(policy.restrictions),
        above=tuple(map(_seen, policy.above)),
    )


def check_blindly(policy: Policy, usage: Usage, asked: Asked) -> bool:
    """Hold a decision without its merchant against what is known; was it taken as told?

    `usage` is under the policy without its rules on merchants.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it cannot have been decided so.
    """
    rule = asked.recorded["rule"]
    decision = decide_without_budgets(usage, asked)
    told = rule in _rules_unseen(policy, asked.request.amount) and (
        decision.allowed or _PLACES[rule] < _PLACES[decision.rule]
    )
    if told:
        left = remaining(usage.policy, usage.spending, asked.now_ms, asked.request)
        decision = Decision(False, RULES[_PLACES[rule]].code, rule, "", {}, left)
    # As bytes, because to Python 1 equals True.
    known = _known(decision)
    if canonical.encode_own(known) != canonical.encode_own(asked.recorded):
        raise ValueError(
            f"the policy without its rules on merchants decides {decision.code} ({decision.rule}): "
            + difference("decision", known, asked.recorded)
        )
    return told


def _seen(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    return tuple(each for each in conditions if not _on_merchant(each))


def _on_merchant(condition: Condition) -> bool:
    if isinstance(condition, Cap):
        return condition.of == "merchant"
    return isinstance(condition, Never) and condition.what == "merchant"


def _rules_unseen(policy: Policy, amount: int) -> set[str]:
    """The rules that may have denied a payment of this amount for reasons that are withheld."""
    rules = set(BUDGET_RULES)
    if policy.merchants is not None:
        rules.add("merchants")
    if any(what == "merchant" for what, _ in policy.in_force.never):
        rules.add("never_merchant")
    for cap in policy.in_force.caps:
        if cap.of == "merchant" and cap.per != "transaction":
            rules.add("merchant_cap")
        elif cap.of == "merchant" and amount > cap.at_most:
            rules.add("per_transaction")
    return rules


def _known(decision: Decision) -> dict[str, Any]:
    """A decision without what is withheld of it."""
    kept, _ = split({"decision": decision.to_json()}, {"decision": _GROUP["decision"]})
    known: dict[str, Any] = kept["decision"]
    return known
