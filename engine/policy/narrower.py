"""Delegation: a session passes on no more than it has."""

from engine.policy.conditions import InForce, Never, in_force
from engine.policy.decision import Policy

_LIMITS = ("per_transaction", "per_day", "per_week", "per_month", "approval_above")
_LISTS = ("permissions", "merchants", "tokens", "chains")


def narrower(child: Policy, parent: Policy) -> str | None:
    """Why `child` is not equal to or narrower than `parent`: the first field and what is wrong.

    None if it is. A limit is narrower when it is lower, a list when nothing is on it that is not on
    the parent's, the time when it lies within the parent's. Each condition and restriction of the
    parent must be among the child's conditions, or a lower amount of the same kind; active hours
    must lie within the parent's. The child's own restrictions do not help: they can be lifted.
    What both spend together is not looked at; that needs a budget above them.
    """
    for field in _LIMITS:
        mine, theirs = getattr(child.limits, field), getattr(parent.limits, field)
        if theirs is not None and (mine is None or mine > theirs):
            return f"limits.{field}: is above the parent's"
    for field in _LISTS:
        mine, theirs = getattr(child, field), getattr(parent, field)
        if theirs is not None and (mine is None or not mine <= theirs):
            return f"{field}: has what the parent's has not"
    if (asked := missing(in_force(child.conditions), parent.in_force)) is not None:
        return f"conditions: {asked}"
    if child.valid_from_ms < parent.valid_from_ms:
        return "valid_from: is before the parent's"
    if child.valid_until_ms > parent.valid_until_ms:
        return "valid_until: is after the parent's"
    return None


def missing(mine: InForce, theirs: InForce) -> str | None:
    """What the parent's conditions ask and those of its child, `mine`, do not; None if nothing."""
    caps = {cap.of_what: cap for cap in mine.caps}
    for cap in theirs.caps:
        if cap.of_what not in caps or caps[cap.of_what].at_most > cap.at_most:
            return f"the parent's {str(cap)!r} does not hold"
    if allowed := sorted(theirs.never - mine.never):
        what, name = allowed[0]
        return f"the parent's {str(Never(what, name))!r} does not hold"
    if theirs.hours is not None and (mine.hours is None or not mine.hours.within(theirs.hours)):
        return "its active hours are not within the parent's"
    return None
