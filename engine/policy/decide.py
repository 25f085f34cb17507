"""The decision: does this session's policy allow this payment now?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from msgspec.structs import astuple

from engine.policy.budgets import Budget
from engine.policy.conditions import Cap
from engine.policy.decision import Decision, PaymentRequest, Policy, Remaining, Standing
from engine.policy.facts import Facts
from engine.policy.limits import Limits
from engine.policy.rules import RULES, Rule, Shape, shape_of
from engine.policy.spending import Meter, Meters, Spending


@dataclass(frozen=True, slots=True)
class Left:
    """What the limits of a session leave, and beside it each cap of its conditions over time.

    Caps leave micro-USD, or a number of payments. `frees_ms` is when the window frees what was
    denied last, while it does not fit (milliseconds; None otherwise).
    """

    remaining: Remaining
    caps: tuple[tuple[Cap, int], ...]
    frees_ms: int | None = None


def decide(
    policy: Policy,
    standing: Standing,
    spending: Spending,
    request: PaymentRequest,
    now_ms: int,
    *,
    chain_time_ms: int = 0,
    budgets: Sequence[Budget] = (),
    approved: bool = False,
) -> Decision:
    """Decide `request` at `now_ms` by the first of `RULES` that applies; allow it if none does.

    A session is over once either clock says so: `chain_time_ms` is the chain's, or 0 for a session
    that is on none. An approval waives the rule that asks for one, and no other. `spending` is of
    this policy. It and the `budgets` are advanced to `now_ms` and not changed otherwise: after an
    allowed decision the caller must add the payment to each of them, with the same `now_ms` and
    before the next decision, or the limits do not hold.
    """
    assert spending.caps == policy.in_force.caps, "the spending of another policy"
    used = spending.windows.used(now_ms)
    facts = Facts(
        policy, standing, spending, used, request, now_ms, chain_time_ms, budgets, approved
    )
    rules = _that_matter(facts) if standing is Standing.ACTIVE else RULES
    for rule in rules:
        finding = rule.check(facts)
        if finding is not None:
            reason, evidence = finding
            left = _remaining(policy.limits, spending, used, now_ms, 0, request)
            return Decision(False, rule.code, rule.name, reason, evidence, left)
    amount = request.amount
    return Decision(
        True,
        "ALLOWED",
        "all",
        "Every rule allows the payment.",
        {"requested": amount, "used": list(used)},
        _remaining(policy.limits, spending, used, now_ms, amount, request),
    )


def remaining(
    policy: Policy, spending: Spending, now_ms: int, request: PaymentRequest | None = None
) -> Remaining:
    """What the limits of the session leave, to the merchant and with the token of a request."""
    used = spending.windows.used(now_ms)
    return _remaining(policy.limits, spending, used, now_ms, 0, request)


def left(policy: Policy, spending: Spending, now_ms: int) -> Left:
    """All that a session's limits and conditions leave, whatever is paid next."""
    caps = tuple((gauge.cap, gauge.left) for gauge in spending.meters.gauges(now_ms))
    return Left(remaining(policy, spending, now_ms), caps)


def left_together(own: Left, family: Meters, now_ms: int) -> Left:
    """What is left of limits that a session spends with all beneath it: its `family`."""
    theirs = {gauge.cap: gauge.left for gauge in family.gauges(now_ms)}
    caps = tuple((cap, min(rest, theirs.get(cap, rest))) for cap, rest in own.caps)
    return replace(own, remaining=remaining_together(own.remaining, family, now_ms), caps=caps)


def remaining_together(
    own: Remaining, family: Meters, now_ms: int, request: PaymentRequest | None = None
) -> Remaining:
    """The same of `Remaining`: the least of what its own payments leave, and those of all."""
    summed = family.get("sum")
    sums = {} if summed is None else {each.cap.per: each.left for each in summed.gauges(0, now_ms)}
    theirs = Remaining(sums.get("day"), sums.get("week"), sums.get("month"), sums.get("lifetime"))
    _meter(theirs, family, 0, now_ms, request)
    pairs = zip(astuple(own), astuple(theirs), strict=True)
    return Remaining(*(a if b is None else b if a is None else min(a, b) for a, b in pairs))


def _remaining(
    limits: Limits,
    spending: Spending,
    used: tuple[int, ...],
    now_ms: int,
    amount: int,
    request: PaymentRequest | None,
) -> Remaining:
    """What is left when `amount` more than `used` is spent."""
    day, week, month = used
    left = Remaining(
        _left(limits.per_day, day + amount),
        _left(limits.per_week, week + amount),
        _left(limits.per_month, month + amount),
        None,
        None,
        None,
        None,
    )
    meters = spending.meters
    if meters:
        left.lifetime = _left_by(meters.get("sum"), amount, now_ms)
        _meter(left, meters, amount, now_ms, request)
    return left


def _meter(
    left: Remaining, meters: Meters, amount: int, now_ms: int, request: PaymentRequest | None
) -> None:
    left.payments = _left_by(meters.get("payments"), amount, now_ms)
    if request is not None:
        left.token = _left_by(meters.get("token", request.token), amount, now_ms)
        left.merchant = _left_by(meters.get("merchant", request.merchant), amount, now_ms)
        if request.pay_to is not None:
            account = _left_by(meters.get("merchant", request.pay_to), amount, now_ms)
            if left.merchant is None or (account is not None and account < left.merchant):
                left.merchant = account


def _left(limit: int | None, used: int) -> int | None:
    # A limit that was lowered can be below what was used under the old one.
    if limit is None:
        return None
    left = limit - used
    if left < 0:
        return 0
    return left


def _left_by(meter: Meter | None, amount: int, now_ms: int) -> int | None:
    return None if meter is None else meter.left(amount, now_ms)


def _that_matter(facts: Facts) -> Sequence[Rule]:
    """The rules that could deny a payment to an active session, by precedence.

    The others need not be asked again for the same policy, whatever is paid, whenever and however
    much it is.
    """
    kind = facts.request.token_priced, bool(facts.budgets)
    rules = facts.policy.plans.get(kind)
    if rules is None:
        shape = shape_of(facts.policy, token_priced=kind[0], budgets=kind[1])
        rules = facts.policy.plans[kind] = _that_bound(shape)
    return rules


@lru_cache(4096)
def _that_bound(shape: Shape) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.bounds(shape))
