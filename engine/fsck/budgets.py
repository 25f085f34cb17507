"""The entries of budgets above the session, as the records of all sessions lead to them in order.

A budget counts from its last founding on: when an operator set it last, or when the first session
was opened beneath the one that delegates. What was paid before is entered then.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.replay import ENDS
from engine.db.tables import BudgetEntry, Decision, Record, Session, StreamHead, table
from engine.fsck.finding import Findings, stored
from engine.fsck.streams import DAMAGE
from engine.ledger.account import number_of
from engine.ledger.ask import pay_to
from engine.ledger.stream import BUDGET_PREFIX, budget_stream

CHUNK = 500
"""So many entries are compared at a time."""

_decisions = table(Decision)
_entries = table(BudgetEntry)
_heads = table(StreamHead)
_records = table(Record)
_sessions = table(Session)
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Founding:
    """From the record `record` on, of `time_ms`, a budget counts; or no longer does."""

    stream: str
    workspace_id: str
    budget: str
    record: int
    time_ms: int
    in_force: bool = True


@dataclass(slots=True)
class Foundings:
    """The last founding of each budget, and whose parent each session has."""

    of: dict[str, Founding] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def note(self, founding: Founding) -> None:
        """An operator set or cleared a budget."""
        self.of[founding.stream] = founding

    def delegated(
        self, workspace_id: str, parent: str, child: str, record: int, time_ms: int
    ) -> None:
        """A session was opened beneath another: only the first founds the budget of both."""
        self.parents[child] = parent
        budget = f"session:{parent}"
        stream = budget_stream(workspace_id, budget)
        known = self.of.get(stream)
        if known is None or record < known.record:
            self.of[stream] = Founding(stream, workspace_id, budget, record, time_ms)


@dataclass(slots=True)
class _Payment:
    """What entries of a payment say of it."""

    whose: Mapping[str, Any]
    decided_ms: int
    merchant: str | None
    pay_to: str | None
    token: str | None
    amount: int
    expires_ms: int | None

    def entry(self, *, captured: int | None) -> dict[str, Any]:
        """Its entry: while it is held, with `captured` None, or once it has ended."""
        return {
            **self.whose,
            "decided_ms": self.decided_ms,
            "merchant": self.merchant,
            "pay_to": self.pay_to,
            "token": self.token,
            "amount": self.amount if captured is None else captured,
            "held": captured is None,
            "expires_ms": self.expires_ms if captured is None else None,
        }


class _Book:
    """The entries of one budget: those that should be there are compared as they come."""

    def __init__(self, connection: sa.Connection, findings: Findings, of: Founding) -> None:
        self.of = of
        self.count = 0
        self.time_ms = of.time_ms
        self._connection = connection
        self._findings = findings
        self._waiting: list[dict[str, Any]] = []

    def enter(self, entry: dict[str, Any], time_ms: int) -> None:
        """The next entry, made at `time_ms`."""
        self._waiting.append({"budget": self.of.stream, "seq": self.count, **entry})
        self.count += 1
        self.time_ms = time_ms
        if len(self._waiting) == CHUNK:
            self.compare()

    def compare(self) -> None:
        """Compare what waits with the table."""
        first = self.count - len(self._waiting)
        query = sa.select(*stored(_entries)).where(
            _entries.c.budget == self.of.stream, _entries.c.seq.between(first, self.count - 1)
        )
        found = {row["seq"]: row for row in self._connection.execute(query).mappings()}
        for expected in self._waiting:
            seq = expected["seq"]
            name = f"{self.of.stream}/{seq}"
            self._findings.compare(
                "budget_entries", name, expected, found.get(seq), by="the records of payments"
            )
        self._waiting.clear()

    def finish(self) -> None:
        """There are no more: whatever else is in the table should not be."""
        self.compare()
        more = sa.select(_entries.c.seq).where(
            _entries.c.budget == self.of.stream,
            sa.not_(_entries.c.seq.between(0, self.count - 1)),
        )
        for seq in self._connection.execute(more).scalars().all():
            name = f"{self.of.stream}/{seq}"
            self._findings.unexpected("budget_entries", name, "no payment led to this entry")


def check_budgets(connection: sa.Connection, findings: Findings, foundings: Foundings) -> None:
    """Compare all entries, and on PostgreSQL the ends of the budgets."""
    books = {stream: _Book(connection, findings, of) for stream, of in foundings.of.items()}
    in_force = {stream: book for stream, book in books.items() if book.of.in_force}
    if in_force:
        _Bookkeeper(connection, in_force, foundings.parents).keep(findings)
    for book in books.values():
        book.finish()
    for budget in connection.execute(sa.select(_entries.c.budget).distinct()).scalars().all():
        if budget not in books:
            findings.unexpected("budget_entries", budget, "no record tells of such a budget")
    if connection.dialect.name != "sqlite":
        _check_heads(connection, findings, books)


def _check_heads(connection: sa.Connection, findings: Findings, books: Mapping[str, _Book]) -> None:
    query = sa.select(*stored(_heads)).where(_heads.c.id.startswith(BUDGET_PREFIX))
    found = {row["id"]: row for row in connection.execute(query).mappings()}
    for stream, book in books.items():
        wanted = {"id": stream, "seq": book.count, "prev": b"", "time_ms": book.time_ms}
        row = found.pop(stream, None)
        paid = book.count or not book.of.budget.startswith("session:")
        if row is not None or paid:  # beneath who delegates nobody may have paid yet
            findings.compare("stream_heads", stream, wanted, row, by="its last entry")
    for stream in found:
        findings.unexpected("stream_heads", stream, "no record tells of such a budget")


class _Bookkeeper:
    """Follows the payments of all sessions in the order of their records."""

    def __init__(
        self,
        connection: sa.Connection,
        books: Mapping[str, _Book],
        parents: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._parents = parents
        self._to_found = sorted(books.values(), key=lambda book: book.of.record, reverse=True)
        self._founded: dict[str, _Book] = {}
        self._whose: dict[str, dict[str, Any]] = {}
        self._agents: dict[str, str] = {}
        self._open: dict[tuple[str, int], _Payment] = {}

    def keep(self, findings: Findings) -> None:
        """Follow everything, and enter it where it counts."""
        for row in self._rows():
            try:
                while self._to_found and self._to_found[-1].of.record <= row["id"]:
                    self._found(self._to_found.pop())
                self._follow(_decode(row["body"]), row["memo_json"])
            except DAMAGE as error:
                findings.add(
                    "records", row["id"], "body", says=f"no budget can follow it: {error!r}"
                )

    def _rows(self) -> Iterator[Mapping[Any, Any]]:
        query = (
            sa.select(_records.c.id, _records.c.body, _decisions.c.memo_json)
            .outerjoin(_decisions, _decisions.c.id == _records.c.id)
            .order_by(_records.c.id)
            .execution_options(yield_per=500)
        )
        yield from self._connection.execute(query).mappings()

    def _follow(self, record: Mapping[str, Any], memo_json: str | None) -> None:
        kind, body, stream = record["kind"], record["body"], record["stream"]
        if kind == "session.created":
            self._agents[stream] = body["grant"]["agent_id"]
            self._whose[stream] = {
                "workspace_id": record["workspace"],
                "session_id": stream,
                "session_type": body["type"],
                "label": body["label"],
            }
        elif kind == "payment.decided":
            if body["decision"]["allowed"]:
                payment = self._payment(record)
                self._open[stream, record["seq"]] = payment
                if not _captures(memo_json):  # else there is one entry, at its end
                    self._enter(record, payment.entry(captured=None))
        elif kind == "payment.signed":
            payment = self._open[stream, number_of(body["payment"])]
            if payment.expires_ms is not None:  # an approval let it pass, and it waited
                payment.expires_ms = None
                self._enter(record, payment.entry(captured=None))
        elif kind in ENDS:
            payment = self._open.pop((stream, number_of(body["payment"])))
            self._enter(record, payment.entry(captured=body["captured_micro_usd"]))

    def _payment(self, decided: Mapping[str, Any]) -> _Payment:
        body = decided["body"]
        request = body["request"]
        signed = "terms" in request and body["approval"] is None  # at once
        return _Payment(
            {**self._whose[decided["stream"]], "number": decided["seq"]},
            decided["time_ms"],
            request["merchant"],
            pay_to(request),
            request["token"],
            request["amount_micro_usd"],
            None if signed else body["hold_expires_ms"],
        )

    def _enter(self, record: Mapping[str, Any], entry: dict[str, Any]) -> None:
        for book in self._above(record["workspace"], record["stream"]):
            book.enter(entry, record["time_ms"])

    def _above(self, workspace_id: str, session_id: str) -> Iterator[_Book]:
        names = [f"agent:{self._agents[session_id]}", "workspace"]
        above: str | None = session_id
        while above is not None:
            names.append(f"session:{above}")
            above = self._parents.get(above)
        for name in names:
            book = self._founded.get(budget_stream(workspace_id, name))
            if book is not None:
                yield book

    def _found(self, book: _Book) -> None:
        """Enter what was paid before and counts: of a workspace or an agent, without its details.

        What was open then is open here; any other row stands as it stood.
        """
        self._founded[book.of.stream] = book
        kind, _, of = book.of.budget.partition(":")
        past = (
            sa.select(
                *(_decisions.c[name] for name in ("session_id", "number", "state", "captured")),
                _records.c.body,
            )
            .join(_records, _records.c.id == _decisions.c.id)
            .where(_decisions.c.workspace_id == book.of.workspace_id)
            .where(_decisions.c.id < book.of.record)
            .execution_options(yield_per=CHUNK)
        )
        if kind == "session":
            past = past.where(_decisions.c.session_id == of).order_by(_decisions.c.id)
        else:
            order = (_decisions.c.decided_ms, _decisions.c.session_id, _decisions.c.number)
            past = past.order_by(*order)
        for row in self._connection.execute(past):
            if kind == "agent" and self._agents.get(row.session_id) != of:
                continue
            held = self._open.get((row.session_id, row.number))
            if held is None and row.state != "captured":
                continue
            payment = replace(held or self._payment(_decode(row.body)))
            if kind != "session":
                payment.merchant = payment.pay_to = payment.token = None
            book.enter(
                payment.entry(captured=row.captured if held is None else None), book.of.time_ms
            )


def _captures(memo_json: str | None) -> bool:
    """Whether a payment was to be captured at once; what is no memo was found elsewhere."""
    try:
        return memo_json is not None and _decode(memo_json)["capture"] is True
    except DAMAGE:
        return False
