"""What callers get to see of an explanation."""

from typing import Any, Literal

from api.rest.answers import DecisionAnswer
from api.rest.explanation_answers import (
    BacktestAnswer,
    DifferenceAnswer,
    ExplainedPayment,
    LimitAnswer,
    RuleAnswer,
    SimulatedPayment,
    TotalAnswer,
)
from api.rest.views import time_text
from engine.audit.backtest import Backtest, Difference, Total
from engine.ledger.explanations import Explained
from engine.ledger.payment import Payment
from engine.policy.explain import Explanation, Limit, Verdict
from engine.policy.money import usd_number


def simulated_json(session_id: str, found: Explanation) -> SimulatedPayment:
    """A payment that was only tried."""
    return {
        "session_id": session_id,
        "decision": decision_json(found.decision.to_json()),
        "rules": rules_json(found),
        "limits": limits_json(found),
        "allowed_at": perhaps(found.allowed_at_ms),
    }


def explained_json(payment: Payment, why: Explained) -> ExplainedPayment:
    """A recorded payment."""
    found = why.found
    return {
        "payment_id": payment.id,
        "session_id": payment.session_id,
        "created_at": time_text(payment.decided_ms),
        "amount_usd": usd_number(payment.amount),
        "merchant_id": payment.request["merchant"],
        "payment_token": payment.request["token"],
        "matches": why.differs is None,
        "differs": why.differs,
        "recorded": decision_json(why.recorded),
        "decision": None if found is None else decision_json(found.decision.to_json()),
        "rules": [] if found is None else rules_json(found),
        "limits": [] if found is None else limits_json(found),
        "allowed_at": None if found is None else perhaps(found.allowed_at_ms),
    }


def backtest_json(session_id: str, found: Backtest) -> BacktestAnswer:
    """A draft that was tried on a session's log."""
    differences = [_difference(difference) for difference in found.differences]
    return {
        "session_id": session_id,
        "decisions": found.decisions,
        "recorded": _total(found.recorded),
        "drafted": _total(found.drafted),
        "budgets_above_unknown": found.budgets_above_unknown,
        "first_difference": differences[0] if differences else None,
        "differences": differences,
    }


def _difference(difference: Difference) -> DifferenceAnswer:
    recorded, drafted = difference.recorded, difference.drafted
    return {
        "payment_id": difference.payment,
        "created_at": time_text(difference.decided_ms),
        "amount_usd": usd_number(difference.amount),
        "recorded": {"code": recorded.code, "rule": recorded.rule},
        "drafted": {"code": drafted.code, "rule": drafted.rule},
    }


def _total(total: Total) -> TotalAnswer:
    return {"allowed": total.allowed, "amount_usd": usd_number(total.micro_usd)}


def perhaps(milliseconds: int | None) -> str | None:
    """An instant, or none."""
    return None if milliseconds is None else time_text(milliseconds)


def decision_json(decision: Any) -> DecisionAnswer:
    """A decision in the form of the log, without what remained after it."""
    return {
        "allowed": decision["allowed"],
        "code": decision["code"],
        "rule": decision["rule"],
        "reason": decision["reason"],
        "evidence": decision["evidence"],
    }


def rules_json(found: Explanation) -> list[RuleAnswer]:
    """Every rule, by precedence."""
    return [_rule(verdict) for verdict in found.verdicts]


def _rule(verdict: Verdict) -> RuleAnswer:
    finding = verdict.finding
    return {
        "rule": verdict.rule.name,
        "code": verdict.rule.code,
        "meaning": verdict.rule.meaning,
        "passes": finding is None,
        "reason": None if finding is None else finding.reason,
        "evidence": None if finding is None else dict(finding.evidence),
    }


def limits_json(found: Explanation) -> list[LimitAnswer]:
    """Every limit over time that the payment would use, by precedence."""
    return [_limit(limit) for limit in found.limits]


def _limit(limit: Limit) -> LimitAnswer:
    counts = limit.unit == "payments"
    unit: Literal["USD", "payments"] = "payments" if counts else "USD"
    most, used, left = (
        amount if counts else usd_number(amount) for amount in (limit.limit, limit.used, limit.left)
    )
    return {
        "name": limit.name,
        "budget": limit.budget,
        "unit": unit,
        "limit": most,
        "used": used,
        "remaining": left,
        "window_ms": limit.window_ms,
    }
