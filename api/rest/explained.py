"""What callers get to see of an explanation."""

from typing import Any, Literal

from api.rest.answers import DecisionAnswer, LimitAnswer, RuleAnswer, SimulatedPayment
from api.rest.views import time_text
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
