"""The records of sessions that share a database and budgets, judged as `tests.ledger.oracle` does.

A pool is what several sessions may spend together: a workspace's or an agent's budget, or a session
with those beneath it. Whoever decides under a pool holds it, so the order of the log is the order
of decisions, and what a pool must refuse is known exactly. A run is shorter than the shortest
window, which is checked, so all of it counts in every window.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.durability.facts import Facts
from tests.ledger.oracle import WINDOWS_MS, Budget, Records, Spend, query_each, require

RULES = ("ancestor_budget", "agent_budget", "workspace_budget")
"""What refuses when a pool is used up, the nearest first."""


@dataclass
class Pool:
    """At most `limit` micro-USD in any window; `rule` refuses what would be over."""

    rule: str
    limit: int
    session: str | None = None
    """Whose limit it is; None: that of a budget."""
    used: int = 0
    time_ms: int = 0
    _counted: dict[str, int] = field(default_factory=dict)
    _open: list[tuple[int, str]] = field(default_factory=list)

    def advance(self, now_ms: int) -> None:
        """Count no hold that is over, though its end may come later in the log."""
        while self._open and self._open[0][0] <= now_ms:
            self.reduce(heapq.heappop(self._open)[1], 0)

    def add(self, payment: str, amount: int, expires_ms: int) -> None:
        """Count an allowed payment."""
        self.used += amount
        self._counted[payment] = amount
        heapq.heappush(self._open, (expires_ms, payment))
        require(self.used <= self.limit, f"{payment}: {self.used} of {self.limit}, {self.rule}")

    def reduce(self, payment: str, to: int) -> None:
        """A hold ended, and `to` of it counts from now on; one that was over is counted no more."""
        if (counted := self._counted.pop(payment, None)) is not None:
            self.used += to - counted


@dataclass
class Shared(Budget):
    """A session under pools. Its own sum is kept and not made again at each decision."""

    pools: list[Pool] = field(default_factory=list)
    session: str = ""
    total: int = 0

    def add(self, payment: Any, spend: Spend) -> None:
        super().add(payment, spend)
        self.total += spend.amount

    def used(self, window: str, now_ms: int) -> int:
        return self.total

    def told(self, now_ms: int) -> dict[str, int | None]:
        """What a session is told is left: those beneath it spend of its limits, too."""
        left = self.remaining(now_ms)
        for pool in self.pools:
            if pool.session == self.session:
                pool.advance(now_ms)
                left = {
                    window: None if limit is None else min(limit, self._limit(window) - pool.used)
                    for window, limit in left.items()
                }
        return left

    def _limit(self, window: str) -> int:
        return self.limits[window] or 0

    def refusal(self, amount: int, now_ms: int) -> str | None:
        rule = super().refusal(amount, now_ms)
        if rule not in (None, "approval_above"):
            return rule
        for pool in self.pools:
            pool.advance(now_ms)
            if amount > pool.limit - pool.used:
                return pool.rule
        return rule


class SharedRecords(Records):
    """As `Records`, of many writers: time runs forward in each session and in each pool."""

    def __init__(
        self,
        pools: dict[str, list[Pool]],
        facts: Facts | None = None,
        *,
        one_writer: bool = False,
    ) -> None:
        """`pools` are those of each session, by its id. What was recorded of payments is kept in
        `facts` and not in memory, if there are any. With `one_writer` time is one, as in `Records`.
        """
        super().__init__()
        self.times_ms: dict[str, int] = {}
        self._pools = pools
        self._facts = facts
        self._one_writer = one_writer
        self._began_ms: int | None = None

    def _in_time(self, record: dict[str, Any]) -> bool:
        if self._one_writer and not super()._in_time(record):
            return False
        stream, now_ms = record["stream"], record["time_ms"]
        before_ms = self.times_ms.get(stream, 0)
        self.times_ms[stream] = now_ms
        if record["kind"].startswith("payment."):
            self._began_ms = self._began_ms or now_ms
            require(now_ms - self._began_ms < min(WINDOWS_MS.values()), "the run is too long")
            for pool in self._pools.get(stream, ()):
                before_ms = max(before_ms, pool.time_ms)
                pool.time_ms = now_ms
        return before_ms <= now_ms

    def _apply(self, record: dict[str, Any]) -> None:
        super()._apply(record)
        if record["kind"] == "session.created":
            stream = record["stream"]
            pools = sorted(self._pools.get(stream, ()), key=lambda pool: RULES.index(pool.rule))
            self.budgets[stream] = Shared(self.budgets[stream].limits, pools=pools, session=stream)

    def _decided(self, session: str, now_ms: int, body: dict[str, Any]) -> None:
        super()._decided(session, now_ms, body)
        budget = self.budgets[session]
        assert isinstance(budget, Shared)
        if body["decision"]["allowed"]:
            amount = body["request"]["amount_micro_usd"]
            for pool in budget.pools:
                pool.add(body["payment"], amount, body["hold_expires_ms"])

    def _ended(self, session: str, kind: str, now_ms: int, body: dict[str, Any]) -> None:
        budget = self.budgets[session]
        assert isinstance(budget, Shared)
        spend = budget.spends.get(body["payment"])
        require(spend is not None, f"{body['payment']}: {kind}, but it is no open hold")
        assert spend is not None
        budget.total -= spend.amount
        super()._ended(session, kind, now_ms, body)
        budget.total += spend.amount
        del budget.spends[body["payment"]]  # what it leaves is in the total
        for pool in budget.pools:
            pool.advance(now_ms)
            pool.reduce(body["payment"], spend.amount)

    def _keep_decided(self, payment: str, now_ms: int, body: dict[str, Any]) -> None:
        if self._facts is None:
            super()._keep_decided(payment, now_ms, body)
            return
        decision = body["decision"]
        facts = [body["request"]["amount_micro_usd"], now_ms, body["hold_expires_ms"]]
        facts += [decision[name] for name in ("allowed", "code", "rule")]
        self._facts.decided(payment, facts, allowed=decision["allowed"])

    def _keep_ended(self, payment: str, kind: str, now_ms: int, body: dict[str, Any]) -> None:
        if self._facts is None:
            super()._keep_ended(payment, kind, now_ms, body)
            return
        state = kind.removeprefix("payment.")
        self._facts.ended(payment, [state, body["captured_micro_usd"], now_ms])


def read_log(store: Path | str, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The (leaf, bytes) of the records that have a place in the log, from the batch on that begins
    with leaf `start`."""
    return query_each(
        store,
        "SELECT b.first_leaf + r.id - b.id, r.body FROM log_batches b "
        "JOIN records r ON r.id >= b.id AND r.id < b.id + 1048576 "
        "WHERE b.first_leaf >= ? ORDER BY b.first_leaf, r.id",
        start,
    )
