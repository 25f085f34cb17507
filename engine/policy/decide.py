"""The decision: does this session's policy allow this payment now?"""

from engine.policy.decision import Decision, PaymentRequest, Policy, Remaining, Standing
from engine.policy.limits import Limits
from engine.policy.rules import RULES, Facts
from engine.policy.windows import RollingWindows


def decide(
    policy: Policy,
    standing: Standing,
    windows: RollingWindows,
    request: PaymentRequest,
    now_ms: int,
    *,
    chain_time_ms: int = 0,
) -> Decision:
    """Decide `request` at `now_ms` by the first of `RULES` that applies; allow it if none does.

    A session is over once either clock says so: `chain_time_ms` is the chain's, or 0 for a session
    that is on none. `windows` has the lengths of the day, week and month limits. It is advanced to
    `now_ms` and not changed otherwise: after an allowed decision the caller must add the amount to
    it, with the same `now_ms` and before the next decision, or the limits do not hold.
    """
    used = windows.used(now_ms)
    facts = Facts(policy, standing, windows, used, request, now_ms, chain_time_ms)
    for rule in RULES:
        finding = rule.check(facts)
        if finding is not None:
            reason, evidence = finding
            return Decision(
                False, rule.code, rule.name, reason, evidence, remaining(policy.limits, used)
            )
    return Decision(
        True,
        "ALLOWED",
        "all",
        "Every rule allows the payment.",
        {"requested": request.amount, "used": list(used)},
        remaining(policy.limits, used, request.amount),
    )


def remaining(limits: Limits, used: tuple[int, ...], amount: int = 0) -> Remaining:
    """What the day, week and month limits still allow when `amount` more than `used` is spent."""
    day, week, month = used
    return Remaining(
        _left(limits.per_day, day + amount),
        _left(limits.per_week, week + amount),
        _left(limits.per_month, month + amount),
    )


def _left(limit: int | None, used: int) -> int | None:
    # A limit that was lowered can be below what was used under the old one.
    return None if limit is None else max(0, limit - used)
