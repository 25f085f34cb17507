"""What several sessions may spend together, worked out a second time: nothing here is the engine's.

A pool is an agent's or the workspace's budget, or what a session that delegates may spend with all
beneath it. Whoever is under it counts in it from the decision on.
"""

from collections.abc import Iterable
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from tests.simulation.terms import LENGTH_MS, Spend, Terms, Window

RULE = {"session": "ancestor_budget", "agent": "agent_budget", "workspace": "workspace_budget"}
LIMITS = {
    "payments_per_hour": ("payments", "hour"),
    "payments_per_day": ("payments", "day"),
    "per_day": ("sum", "day"),
    "per_week": ("sum", "week"),
    "per_month": ("sum", "month"),
    "lifetime": ("sum", None),
}


class Pool:
    """All that is spent under one budget. `windows` are in the order in which they refuse."""

    def __init__(self, name: str, windows: Iterable[Window]) -> None:
        self.name, self.rule = name, RULE[name.partition(":")[0]]
        self.windows = list(windows)
        self._open: dict[tuple[str, int], Spend] = {}
        self._due: list[tuple[int, tuple[str, int]]] = []

    def add(self, payment: tuple[str, int], spend: Spend) -> None:
        """Count a payment, or as much of it as still counts."""
        ours = replace(spend)
        for window in self.windows:
            if window.concerns(ours.token, ours.merchant):
                window.inside.append(ours)
                window.used += window.count(ours.amount)
        if ours.state == "held":
            self._open[payment] = ours
            heappush(self._due, (ours.expires_ms, payment))

    def ended(self, payment: tuple[str, int], to: int, now_ms: int) -> None:
        """A hold ended with so much of it spent."""
        ours = self._open.pop(payment, None)
        if ours is None:
            return
        for window in self.windows:
            if window.concerns(ours.token, ours.merchant):
                window.shrink(ours, to, now_ms)
        ours.amount = to

    def at(self, now_ms: int) -> None:
        """What left a window, and what is held no longer though nobody said so yet."""
        while self._due and self._due[0][0] <= now_ms:
            self.ended(heappop(self._due)[1], 0, now_ms)
        for window in self.windows:
            window.slide(now_ms)

    def left(self, own: dict[str, int | None]) -> dict[str, int | None]:
        """What is left of the limits of a session that delegates, of which its own payments leave
        `own`, at the instant of the last `at`."""
        found = dict(own)
        for window in self.windows:
            name = "payments" if window.of == "payments" else window.told
            known = found.get(name)
            if window.name is None and window.most is not None and known is not None:
                found[name] = min(known, max(0, window.most - window.used))
        return found

    def over(self, asked: dict[str, Any]) -> tuple[Any, ...] | None:
        """What a payment is over first: budget, name, limit, used, requested, length, and when it
        would fit; None if it fits."""
        for window in self.windows:
            if window.over(asked):
                return self.name, window.told, *window.evidence(asked["amount_micro_usd"])
        return None


def of_limits(name: str, limits: dict[str, int | None]) -> Pool:
    """The budget of an agent or of the workspace."""
    windows = []
    for limit, (of, length) in LIMITS.items():
        if limits[limit] is not None:
            length_ms = None if length is None else LENGTH_MS[length]
            windows.append(Window("", of, None, limits[limit], length_ms, limit))
    return Pool(name, windows)


def of_terms(name: str, terms: Terms) -> Pool:
    """What a session allows, for it and all beneath it."""
    pool = Pool(name, [])
    order = ("payments", "sum", "token", "merchant")
    for window in sorted(terms.all_windows(), key=lambda each: order.index(each.of)):
        ours = Window("", window.of, window.name, window.most, window.length_ms, window.told)
        pool.windows.append(ours)
    return pool


def limited(pool: Pool, terms: Terms) -> None:
    """The limits of the session that delegates were lowered, or are not any more."""
    for window in pool.windows:
        if window.told in terms.limits:
            window.most = terms.limits[window.told]


def wider(child: Terms, parent: Terms) -> bool:
    """Whether a session asks for more than the one above it may."""
    for name, most in parent.limits.items():
        mine = child.limits[name]
        if most is not None and (mine is None or mine > most):
            return True
    for name in ("permissions", "merchants", "tokens", "chains"):
        theirs = set(parent.grant[name])
        if theirs and not (child.grant[name] and set(child.grant[name]) <= theirs):
            return True
    caps = {(each.of, each.name, each.length_ms): each.most or 0 for each in child.caps}
    for cap in parent.caps:
        found = caps.get((cap.of, cap.name, cap.length_ms))
        if found is None or found > (cap.most or 0):
            return True
    each_payment = {(of, name): most for of, name, most in child.per_payment}
    if any(each_payment.get((of, name), most + 1) > most for of, name, most in parent.per_payment):
        return True
    if parent.open is not None and (
        child.open is None or any(m and not p for m, p in zip(child.open, parent.open, strict=True))
    ):
        return True
    return (
        not parent.never <= child.never
        or child.from_ms < parent.from_ms
        or child.until_ms > parent.until_ms
    )
