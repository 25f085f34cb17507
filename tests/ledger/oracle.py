"""What every budget must be, worked out from the raw records. It shares no code with the engine:
plain JSON, its own hashes, and a sum over everything at every instant.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.audit import rfc6962
from tests.audit.committed import leaf as leaf_of

WINDOWS_MS = {
    "per_day": 24 * 3_600_000,
    "per_week": 7 * 24 * 3_600_000,
    "per_month": 30 * 24 * 3_600_000,
}
ROWS_AT_ONCE = 2_000


class Broken(AssertionError):
    """Something that was promised does not hold."""


def require(held: object, what: str) -> None:
    """Go on only if `held`, also under `python -O`."""
    if not held:
        raise Broken(what)


@dataclass
class Spend:
    """A payment that was allowed, and how much of it still counts."""

    decided_ms: int
    amount: int
    held: bool
    expires_ms: int


@dataclass
class Budget:
    """One session: its limits in micro-USD (None: unlimited) and all it was ever allowed."""

    limits: dict[str, int | None]
    spends: dict[Any, Spend] = field(default_factory=dict)

    def add(self, payment: Any, spend: Spend) -> None:
        """Count an allowed payment."""
        self.spends[payment] = spend

    def used(self, window: str, now_ms: int) -> int:
        """What was decided in `(now - length, now]` and still counts."""
        after_ms = now_ms - WINDOWS_MS[window]
        return sum(
            spend.amount for spend in self.spends.values() if after_ms < spend.decided_ms <= now_ms
        )

    def remaining(self, now_ms: int) -> dict[str, int | None]:
        """What each window still allows."""
        return {
            window: None if (limit := self.limits[window]) is None else limit - used
            for window in WINDOWS_MS
            for used in [self.used(window, now_ms)]
        }

    def refusal(self, amount: int, now_ms: int) -> str | None:
        """The rule that must refuse `amount` now, None if it must be allowed."""
        per_transaction, above = self.limits["per_transaction"], self.limits["approval_above"]
        if per_transaction is not None and amount > per_transaction:
            return "per_transaction"
        for window, left in self.remaining(now_ms).items():
            if left is not None and amount > left:
                return window
        return "approval_above" if above is not None and amount > above else None


class Records:
    """Reads records in the order of the log and refuses the first that breaks a promise."""

    def __init__(self) -> None:
        self.budgets: dict[str, Budget] = {}
        self.decided: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.leaves: list[bytes] = []
        self._heads: dict[str, tuple[int, str]] = {}
        self._time_ms = 0

    def feed(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Take (index, bytes) rows; rows seen before must be the same bytes."""
        for index, raw in rows:
            leaf = leaf_of(raw)
            if index < len(self.leaves):
                require(leaf == self.leaves[index], f"record {index} was changed")
                continue
            require(index == len(self.leaves), f"record {len(self.leaves)} is missing")
            self.leaves.append(leaf)
            record = json.loads(raw)
            seq, prev = self._heads.get(record["stream"], (0, None))
            require((record["seq"], record["prev"]) == (seq, prev), f"record {index} is unlinked")
            require(self._in_time(record), f"record {index} runs backwards")
            self._heads[record["stream"]] = (seq + 1, leaf.hex())
            self._apply(record)

    def root(self, size: int) -> bytes:
        """The root of the first `size` records (RFC 6962)."""
        return rfc6962.root(rfc6962.subtrees(self.leaves), size)

    def _in_time(self, record: dict[str, Any]) -> bool:
        """Whoever writes alone never goes back in time, whatever the record is about."""
        before_ms, self._time_ms = self._time_ms, record["time_ms"]
        return before_ms <= self._time_ms

    def _apply(self, record: dict[str, Any]) -> None:
        body = record["body"]
        if record["kind"] == "session.created":
            self.budgets[record["stream"]] = Budget(body["grant"]["limits_micro_usd"])
        elif record["kind"] == "payment.decided":
            self._decided(record["stream"], record["time_ms"], body)
        elif record["kind"].startswith("payment."):
            self._ended(record["stream"], record["kind"], record["time_ms"], body)

    def _decided(self, session: str, now_ms: int, body: dict[str, Any]) -> None:
        payment, decision = body["payment"], body["decision"]
        self._keep_decided(payment, now_ms, body)
        budget, amount = self.budgets[session], body["request"]["amount_micro_usd"]
        rule = budget.refusal(amount, now_ms)
        require(
            decision["rule"] == (rule or "all") and decision["allowed"] == (rule is None),
            f"{payment}: {decision['rule']}, but it is {rule}",
        )
        if rule is None:
            budget.add(payment, Spend(now_ms, amount, True, body["hold_expires_ms"]))
            over = [w for w, left in budget.remaining(now_ms).items() if (left or 0) < 0]
            require(not over, f"{payment} went over {over}")

    def _ended(self, session: str, kind: str, now_ms: int, body: dict[str, Any]) -> None:
        payment, captured = body["payment"], body["captured_micro_usd"]
        self._keep_ended(payment, kind, now_ms, body)
        spend = self.budgets[session].spends[payment]
        late = now_ms >= spend.expires_ms
        require(late == (kind == "payment.expired"), f"{payment}: {kind} at the wrong time")
        require(body["held_micro_usd"] == spend.amount, f"{payment}: not what was held")
        least = 1 if kind == "payment.captured" else 0
        require(least <= captured <= least * spend.amount, f"{payment}: {kind} of {captured}")
        spend.held, spend.amount = False, captured

    def _keep_decided(self, payment: str, now_ms: int, body: dict[str, Any]) -> None:
        """Remember it, and whether it was there before."""
        require(payment not in self.decided, f"{payment} was decided twice")
        self.decided[payment] = {**body, "time_ms": now_ms}

    def _keep_ended(self, payment: str, kind: str, now_ms: int, body: dict[str, Any]) -> None:
        """The same."""
        require(payment not in self.ended, f"{payment} ended twice")
        self.ended[payment] = {**body, "kind": kind, "time_ms": now_ms}


def read_records(store: Path | str, start: int = 0) -> list[tuple[int, bytes]]:
    """The (index, bytes) of the stored records from index `start` on."""
    return query(
        store,
        "SELECT row_number() OVER (ORDER BY id) - 1, body FROM records "
        "ORDER BY id LIMIT 1000000000 OFFSET ?",
        start,
    )


def query(store: Path | str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read the data file, or the database of a URL, with a connection of its own."""
    if isinstance(store, str):
        with psycopg.connect(store) as postgres:
            sql = sql.replace("?", "%s").replace("CAST(body AS TEXT)", "convert_from(body, 'UTF8')")
            return postgres.execute(sql.encode(), values or None).fetchall()
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def query_each(store: Path | str, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """As `query`, one row after the other: they may be more than memory holds."""
    if isinstance(store, str):
        with psycopg.connect(store) as postgres, postgres.cursor("each") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            cursor.execute(sql.replace("?", "%s").encode(), values or None)
            yield from cursor
        return
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        yield from connection.execute(sql, values)


def alter(store: Path | str, sql: str, *values: Any) -> int:
    """Change what is stored behind everybody's back; returns how many rows were changed."""
    if isinstance(store, str):
        with psycopg.connect(store) as postgres:
            return postgres.execute(sql.replace("?", "%s").encode(), values or None).rowcount
    with closing(sqlite3.connect(store)) as connection, connection:
        return connection.execute(sql, values).rowcount
