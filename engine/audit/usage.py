"""What a session has used, payment by payment, and a recorded payment decided on it again."""

from collections.abc import Mapping
from dataclasses import replace
from sys import intern
from typing import Any

import msgspec

from engine.audit.approvals import names_granted
from engine.audit.record import Record, integer
from engine.audit.report import shown
from engine.audit.signing import read_terms
from engine.policy.budgets import LIMIT_NAMES, budget_rule
from engine.policy.conditions import Cap, parse_condition
from engine.policy.decide import decide, remaining
from engine.policy.decision import Decision, PaymentRequest, Policy, Standing
from engine.policy.facts import Finding
from engine.policy.limit_checks import over_finding
from engine.policy.limits import Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD
from engine.policy.rules import BUDGET_RULES
from engine.policy.spending import Spending
from engine.policy.windows import Entry


class Usage:
    """The budget of one session under a policy that can change; payments are known by their ids.

    Amounts are micro-USD; time never runs backwards.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.spending = Spending(policy)
        self._holds: dict[str, Entry] = {}
        self._counted: dict[str, tuple[int, PaymentRequest]] = {}
        """What counts of each payment, and when it was decided; in that order."""

    def enforce(self, policy: Policy) -> None:
        """From now on this policy holds. A new cap counts what was paid before it, too."""
        self.policy = policy
        self.spending = Spending(policy)
        for payment, (decided_ms, request) in self._counted.items():
            entry = self.spending.add(decided_ms, request)
            if payment in self._holds:
                self._holds[payment] = entry

    def limit(self, limits: Limits) -> None:
        """From now on these limits hold. What was paid counts under them as it did before."""
        self.policy = replace(self.policy, limits=limits)

    def hold(self, payment: str, now_ms: int, request: PaymentRequest) -> None:
        """Count a payment that was allowed."""
        self._holds[payment] = self.spending.add(now_ms, request)
        self._counted[payment] = now_ms, request

    def held(self, payment: str) -> int:
        """What an open hold holds."""
        return self._holds[payment].amount

    def end(self, payment: str, now_ms: int, captured: int) -> None:
        """End an open hold with so much of it captured."""
        self.spending.windows.advance(now_ms)
        self.spending.reduce(self._holds.pop(payment), captured)
        if captured:
            decided_ms, request = self._counted[payment]
            if captured != request.amount:
                self._counted[payment] = (
                    decided_ms,
                    msgspec.structs.replace(request, amount=captured),
                )
        else:
            del self._counted[payment]


_STANDINGS = {standing.value: standing for standing in Standing}


class Asked(msgspec.Struct):
    """What was asked and known when a decision was recorded; `recorded` is the decision.

    `approved` is whether it says that an approval was granted for it, which is for
    `engine.audit.approvals` to believe.
    """

    standing: Standing
    request: PaymentRequest
    now_ms: int
    chain_time_ms: int
    approved: bool
    recorded: Mapping[str, Any]


def read_asked(record: Record) -> Asked:
    """Read the record of a decision; a merchant that is withheld is None.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not of the form of one.
    """
    body = record.body
    standing = _STANDINGS.get(body["standing"])
    if standing is None:
        raise ValueError(f"{shown(body['standing'])} is no standing of a session")
    return Asked(
        standing,
        _request(body["request"]),
        record.time_ms,
        integer(body["chain_time_ms"]),
        names_granted(body),
        body["decision"],
    )


def decide_without_budgets(usage: Usage, asked: Asked) -> Decision:
    """What the session's own policy decides on this usage."""
    return decide(
        usage.policy,
        asked.standing,
        usage.spending,
        asked.request,
        asked.now_ms,
        chain_time_ms=asked.chain_time_ms,
        # Budgets come before the approval, so to a denial by one it cannot matter.
        approved=asked.approved or asked.recorded["rule"] in BUDGET_RULES,
    )


def decide_again(usage: Usage, asked: Asked) -> Decision:
    """What is decided on this usage; what a budget above the session held is as it is recorded.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: what is recorded of a budget cannot be.
    """
    rule, decision = asked.recorded["rule"], decide_without_budgets(usage, asked)
    if rule not in BUDGET_RULES or not decision.allowed:
        return decision
    finding = _budget_finding(rule, asked.recorded["evidence"], asked.request)
    left = remaining(usage.policy, usage.spending, asked.now_ms, asked.request)
    return Decision(False, "LIMIT_EXCEEDED", rule, *finding, left)


def _budget_finding(rule: str, told: Mapping[str, Any], request: PaymentRequest) -> Finding:
    """What a budget that holds as much as the evidence tells has against a payment."""
    budget, used, limit = told["budget"], integer(told["used"]), integer(told["limit"])
    if budget_rule(budget) != rule:
        raise ValueError(f"{rule} is not about budget {budget}")
    cap = _named_cap(told["name"], limit)
    named = (request.token,) if cap.of == "token" else (request.merchant, request.pay_to)
    if cap.name is not None and cap.name not in named:
        raise ValueError(f"the payment is not under {cap}")
    requested = 1 if cap.of == "payments" else request.amount
    if not 0 <= limit < used + requested:
        raise ValueError(f"the payment fits into budget {budget}")
    retry_at_ms = told["retry_at_ms"]
    if retry_at_ms is not None:
        integer(retry_at_ms)
    about = {"budget": budget, "name": told["name"]}
    return over_finding(cap, used, requested, retry_at_ms, about)


def _named_cap(name: str, limit: int) -> Cap:
    """The cap that the evidence names: by its limit, or by the sentence of a condition."""
    if name in LIMIT_NAMES:
        of, per = LIMIT_NAMES[name]
        return Cap(of, None, limit, per)
    cap = parse_condition(name)
    if not isinstance(cap, Cap) or cap.name is None or cap.at_most != limit:
        raise ValueError(f"{name} is not the limit of {limit}")
    return cap


def _request(asked: Mapping[str, Any]) -> PaymentRequest:
    amount = integer(asked["amount_micro_usd"])
    if not 0 < amount <= AMOUNT_MAX_MICRO_USD:
        raise ValueError("the amount is not one that can be paid")
    if type(asked["token_priced"]) is not bool:
        raise ValueError("token_priced is not true or false")
    terms, merchant = read_terms(asked), asked.get("merchant")
    return PaymentRequest(
        amount,
        # One text each, since most payments have the same, and a million can be counted.
        merchant and intern(merchant),
        intern(asked["token"]),
        intern(asked["chain"]),
        asked["token_priced"],
        intern(asked["permission"]),
        None if terms is None else terms["pay_to"],
    )
