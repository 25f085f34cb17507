"""A payment explained: what every rule says, what every limit leaves, when it would be allowed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.policy.budgets import Budget
from engine.policy.conditions import WINDOW_MS
from engine.policy.decide import decide
from engine.policy.decision import Decision, PaymentRequest, Policy, Standing
from engine.policy.expiring import Expiry, by_counter, fits_at
from engine.policy.facts import Facts, Finding
from engine.policy.limit_checks import budget_gauges, session_gauge
from engine.policy.money import SUM_MAX_MICRO_USD
from engine.policy.rules import BUDGET_RULES, RULES, Rule
from engine.policy.spending import Gauge, Spending


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says to a payment, whatever the others say; no finding: it passes."""

    rule: Rule
    finding: Finding | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit over time that the payment would use: micro-USD, or payments (`unit`).

    `name` is that of the limit, or the sentence of a condition; `budget` the id of the budget it
    belongs to. `window_ms` is None if it never frees. `left` is without the payment.
    """

    name: str
    budget: str | None
    unit: str
    limit: int
    used: int
    left: int
    window_ms: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`allowed_at_ms` is the first instant at which the same request would be allowed if nothing
    else happened until then: now, later, or None for never. Of the holds that are open those that
    are known to expire do so, and the others are kept."""

    decision: Decision
    verdicts: tuple[Verdict, ...]
    limits: tuple[Limit, ...]
    allowed_at_ms: int | None

    def to_json(self) -> dict[str, Any]:
        """The explanation as it is shown."""
        return {
            "decision": self.decision.to_json(),
            "rules": [
                {
                    "rule": verdict.rule.name,
                    "code": verdict.rule.code,
                    "meaning": verdict.rule.meaning,
                    "passes": verdict.finding is None,
                    "reason": None if verdict.finding is None else verdict.finding.reason,
                    "evidence": None if verdict.finding is None else dict(verdict.finding.evidence),
                }
                for verdict in self.verdicts
            ],
            "limits": [asdict(limit) for limit in self.limits],
            "allowed_at_ms": self.allowed_at_ms,
        }


def explain(
    policy: Policy,
    standing: Standing,
    spending: Spending,
    request: PaymentRequest,
    now_ms: int,
    *,
    chain_time_ms: int = 0,
    budgets: Sequence[Budget] = (),
    approved: bool = False,
    expiries: Iterable[Expiry] = (),
) -> Explanation:
    """Ask every rule about `request` at `now_ms`; the arguments are those of `decide`, and when
    open holds, in `spending` and in `budgets`, are over if nobody captures them.

    Like it, this advances `spending` and `budgets` to `now_ms` and changes nothing else.
    """
    decision = decide(
        policy,
        standing,
        spending,
        request,
        now_ms,
        chain_time_ms=chain_time_ms,
        budgets=budgets,
        approved=approved,
    )
    used = spending.windows.used(now_ms)
    facts = Facts(
        policy, standing, spending, used, request, now_ms, chain_time_ms, budgets, approved
    )
    verdicts = tuple(Verdict(rule, rule.check(facts)) for rule in RULES)
    gauges = list(_gauges(facts))
    hopeless = any(verdict.finding and not verdict.rule.waits for verdict in verdicts)
    return Explanation(
        decision,
        verdicts,
        tuple(_limit(*named) for named in gauges if named[2].cap.at_most < SUM_MAX_MICRO_USD),
        None if hopeless else _allowed_at_ms(facts, [gauge for _, _, gauge in gauges], expiries),
    )


def _gauges(facts: Facts) -> Iterator[tuple[str, str | None, Gauge]]:
    """Everything over time that the payment must fit into: name, budget, gauge."""
    for window in range(len(facts.used)):
        gauge = session_gauge(facts, window)
        yield gauge.cap.limit_name, None, gauge
    request = facts.request
    for meter in facts.spending.meters.concerned(request):
        for gauge in meter.gauges(request.amount, facts.now_ms):
            yield str(gauge.cap), None, gauge
    for rule in BUDGET_RULES:
        for budget_id, gauge in budget_gauges(facts, rule):
            yield gauge.cap.limit_name, budget_id, gauge


def _limit(name: str, budget: str | None, gauge: Gauge) -> Limit:
    return Limit(
        name=name,
        budget=budget,
        unit="payments" if gauge.cap.of == "payments" else "micro_usd",
        limit=gauge.cap.at_most,
        used=gauge.used,
        left=gauge._replace(requested=0).left,
        window_ms=WINDOW_MS[gauge.cap.per],
    )


def _allowed_at_ms(facts: Facts, gauges: Sequence[Gauge], expiries: Iterable[Expiry]) -> int | None:
    # What is used only falls while nothing is added, so a payment that fits goes on fitting: each
    # gauge gives one instant, the latest of them serves all, and then only the hours can shut.
    allowed_at_ms = max(facts.now_ms, facts.policy.valid_from_ms)
    known = by_counter(expiries if any(gauge.over for gauge in gauges) else ())
    for gauge in gauges:
        fits_at_ms = fits_at(gauge, known, facts.now_ms)
        if fits_at_ms is None:
            return None
        allowed_at_ms = max(allowed_at_ms, fits_at_ms)
    hours = facts.policy.in_force.hours
    if hours is not None:
        opens_at_ms = hours.opens_at(allowed_at_ms)
        if opens_at_ms is None:
            return None
        allowed_at_ms = opens_at_ms
    return allowed_at_ms if allowed_at_ms < facts.policy.valid_until_ms else None
