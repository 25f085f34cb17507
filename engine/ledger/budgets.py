"""Budgets above the session: what a workspace, an agent, or a session that delegates may spend with
everything under it.

Each has entries in the database, one for each payment under it and one more when less of it counts.
Whoever decides a payment holds every budget that it is under, so what others added is known.
"""

import contextlib
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError, decode_object
from engine.db.database import Read, Turn
from engine.db.tables import BudgetEntry, BudgetRow, Decision, Session, Shared, Workspace, table
from engine.errors import Unavailable
from engine.ledger.account import Account
from engine.ledger.ask import pay_to
from engine.ledger.batch import Batch
from engine.ledger.payment import Payment, of_session, payment_from_row, select_payments
from engine.ledger.stream import budget_stream
from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.decision import PaymentRequest
from engine.policy.expiring import Expiry
from engine.policy.spending import Gauge
from engine.policy.windows import Entry

_budgets = table(BudgetRow)
_decisions = table(Decision)
_entries = table(BudgetEntry)
_sessions = table(Session)
_shared = table(Shared)
_workspaces = table(Workspace)
_held = _decisions.c.state == "held"
_NEW: tuple[None, None] = (None, None)
Gauges = dict[str, list[Gauge]]
"""Limits of budgets, and what is used of each, by the budgets' ids."""
ABOVE_MAX = 20_000
"""Of so many sessions it is remembered which budgets they are under."""
KNOWN_MAX = 20_000
"""So many budgets are kept in memory between two batches; any other is read again when needed."""
_UNKNOWN_TOKEN = "unknown:0/unknown:0"  # noqa: S105 (the id of an asset)


@dataclass(slots=True)
class Known:
    """A budget as far as its entries were followed: `seq` of them; `open` has the holds, each
    with when it is over if nobody ends it."""

    stream: str
    policy: Budget
    seq: int = 0
    open: dict[tuple[str, int], tuple[Entry, int | None]] = field(default_factory=dict)
    _expiries: list[tuple[int, tuple[str, int]]] = field(default_factory=list)

    def follow(self, batch: Batch) -> None:
        """Read the entries that were added since."""
        later = sa.select(_entries).where(
            _entries.c.budget == self.stream, _entries.c.seq >= self.seq
        )
        for row in batch.read(later.order_by(_entries.c.seq)).mappings():
            self.enter(row["seq"], row)

    def enter(self, seq: int, row: Mapping[Any, Any]) -> None:
        """Take an entry into account, the next after those followed so far."""
        self.seq = seq + 1
        payment = row["session_id"], row["number"]
        entry, _ = self.open.pop(payment, _NEW)
        if entry is None:
            entry = self.policy.add(row["decided_ms"], _request(row))
        self.policy.reduce(entry, row["amount"])
        if row["held"]:
            self.open[payment] = entry, row["expires_ms"]
            if row["expires_ms"] is not None:
                heapq.heappush(self._expiries, (row["expires_ms"], payment))

    def expiries(self) -> Iterator[Expiry]:
        """When its open holds are over, but for those that the chain ends."""
        for entry, expires_ms in self.open.values():
            if expires_ms is not None:
                yield Expiry(expires_ms, entry.parts)

    def expire(self, now_ms: int) -> None:
        """Count no hold that is over, though nobody may have entered its end yet."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            expires_ms, payment = heapq.heappop(self._expiries)
            entry, over_ms = self.open.get(payment, _NEW)
            if entry is not None and over_ms == expires_ms:  # it was not signed since
                self.policy.reduce(entry, 0)


class Budgets:
    """All budgets above sessions, as one process knows them. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._told: int | None = None
        self._known: dict[str, Known] = {}
        self._limits: dict[str, dict[str, BudgetLimits]] = {}
        self._above: dict[str, tuple[str, ...]] = {}

    def streams(self, session_id: str) -> tuple[str, ...]:
        """What was held to decide for a session when that was last done. From any thread.

        Of what it is not told a batch finds out, and is begun again.
        """
        return self._above.get(session_id, ())

    def learn(self, turn: Turn, now_ms: int) -> None:
        """Take notice of whether any were changed; `follow` is told of which."""
        del now_ms
        self._told = turn.budgets_version

    def follow(self, batch: Batch) -> None:
        """Have what another process changed read again, before anything is decided."""
        self._let_go(batch)
        if self._told == self._version:
            return
        if self._version is not None:
            later = sa.select(_workspaces.c.id).where(_workspaces.c.budgets_version > self._version)
            for workspace_id in batch.read(later).scalars().all():
                batch.forget(workspace_id)
        self._version = self._told

    def _let_go(self, batch: Batch) -> None:
        """Forget the budgets that were not used for longest, if there are too many.

        A batch has not begun to use any: within one each is read once, however many it needs.
        """
        for each in list(islice(self._known, max(0, len(self._known) - KNOWN_MAX))):
            del self._known[each]
            batch.forget_end(each)

    def forget(self) -> None:
        """Read everything again when it is next needed."""
        self._known.clear()
        self._limits.clear()

    def forget_of(self, batch: Batch, workspace_id: str, session_id: str | None = None) -> None:
        """Read what is of one workspace, or of this session of it, again when it is next needed."""
        if session_id is not None:
            self._above.pop(session_id, None)
            return
        theirs = budget_stream(workspace_id, "")
        for each in [each for each in self._known if each.startswith(theirs)]:
            del self._known[each]
            batch.forget_end(each)
        self._limits.pop(workspace_id, None)

    def hold(self, batch: Batch, accounts: Iterable[Account]) -> None:
        """Say at once which budgets the payments of all these sessions are under.

        Said by one payment after the other, a batch would be begun again for each of them.
        """
        batch.hold(self._all_over(batch, accounts))

    def _all_over(self, batch: Batch, accounts: Iterable[Account]) -> Iterator[str]:
        for account in accounts:
            with contextlib.suppress(Unavailable):  # of what is damaged its own payments hear
                yield from self._over(batch, account)

    def above(self, batch: Batch, account: Account) -> Sequence[Known]:
        """The budgets that a session's payments are under, the nearest first, and held."""
        return self._followed(batch, account.stream.workspace_id, self._bounds(batch, account))

    def family(self, batch: Batch, account: Account) -> Budget | None:
        """What a session that delegates spends with all beneath it, held; None: it does not."""
        if not account.delegates:
            return None
        bounds = {f"session:{account.stream.id}": account.policy}
        [known] = self._followed(batch, account.stream.workspace_id, bounds)
        return known.policy

    def deny(self, batch: Batch, account: Account) -> bool:
        """Whether what was denied last is denied by a budget still, if one did: also by one that is
        damaged. What anything else denied stays so, for all that is known here."""
        request = account.limit_above
        if request is None:
            return True
        try:
            found = self.above(batch, account)
        except Unavailable:
            return True
        return any(
            gauge.over
            for known in found
            for meter in known.policy.meters.concerned(request)
            for gauge in meter.gauges(request.amount, batch.now_ms)
        )

    def _over(self, batch: Batch, account: Account) -> Sequence[str]:
        """The streams of the budgets that a session is under; others are told of them."""
        session, workspace_id = account.stream.id, account.stream.workspace_id
        bounds = self._bounds(batch, account)
        streams = tuple(budget_stream(workspace_id, each) for each in bounds)
        self._above.pop(session, None)
        if streams:
            self._above[session] = streams
            if len(self._above) > ABOVE_MAX:
                del self._above[next(iter(self._above))]
        return streams

    def used(self, batch: Batch, workspace_id: str, wanted: Collection[str] | None) -> Gauges:
        """Every limit of the `wanted` budgets of a workspace that there are, or of all."""
        bounds = stored_limits(batch.read, workspace_id, wanted)
        found = self._followed(batch, workspace_id, bounds)
        return {
            each: list(known.policy.meters.gauges(batch.now_ms))
            for each, known in zip(bounds, found, strict=True)
        }

    def _followed(
        self, batch: Batch, workspace_id: str, bounds: Mapping[str, Any]
    ) -> Sequence[Known]:
        streams = [budget_stream(workspace_id, budget_id) for budget_id in bounds]
        batch.hold(streams)
        found = []
        for stream, (budget_id, limits) in zip(streams, bounds.items(), strict=True):
            known = self._known.pop(stream, None)
            if known is None:
                known = Known(stream, Budget(budget_id, limits))
            self._known[stream] = known  # the last of them, as it was used last
            if known.seq != batch.head(stream).seq:
                known.follow(batch)
            known.expire(batch.now_ms)
            found.append(known)
        return found

    def count(self, batch: Batch, budgets: Collection[Known], payment: Payment) -> None:
        """An allowed payment, or the end of its hold, is entered wherever it counts."""
        if not budgets:
            return
        row = _entry(payment)
        for known in budgets:
            known.enter(batch.enter(known.stream, row), row)

    def _bounds(self, batch: Batch, account: Account) -> dict[str, Any]:
        bounds: dict[str, Any] = dict(account.delegators)
        if account.delegates:
            bounds = {f"session:{account.stream.id}": account.policy, **bounds}
        limits = self._limits.get(account.stream.workspace_id)
        if limits is None:
            limits = self._limits[account.stream.workspace_id] = stored_limits(
                batch.read, account.stream.workspace_id
            )
        for budget_id in (f"agent:{account.agent_id}", "workspace"):
            if budget_id in limits:
                bounds[budget_id] = limits[budget_id]
        return bounds


def refound(batch: Batch, workspace_id: str, budget_id: str, *, in_force: bool) -> None:
    """A budget was set or cleared: what was paid before it counts, and nothing of it afterwards.

    Its entries count up from 0 again.

    The command must name `engine.db.database.BUDGETS` among its streams.
    """
    stream = budget_stream(workspace_id, budget_id)
    batch.hold((stream,))
    batch.update(sa.delete(_entries).where(_entries.c.budget == stream))
    batch.enter_anew(stream)
    if in_force:
        _enter_past(batch, stream, workspace_id, budget_id)
    changed(batch, workspace_id)


def changed(batch: Batch, workspace_id: str, session_id: str | None = None) -> None:
    """Let every process know that what bounds a workspace's sessions is not what it was.

    Where it is this one session alone, the process that changed it reads no other again.
    """
    batch.forget(workspace_id, session_id)
    batch.update(sa.update(_shared).values(budgets_version=_shared.c.budgets_version + 1))
    version = sa.select(_shared.c.budgets_version).scalar_subquery()
    its = _workspaces.c.id == workspace_id
    batch.update(sa.update(_workspaces).where(its).values(budgets_version=version))
    if batch.shared and batch.read(sa.select(_workspaces.c.id).where(its)).first() is None:
        # No other process would hear of it. What was written is given up with the batch.
        raise RuntimeError(f"there is no row of the workspace {workspace_id}")


def delegated(batch: Batch, workspace_id: str, session_id: str) -> None:
    """A session has its first session beneath it: what it paid itself counts with what they pay.

    The command must name `engine.db.database.BUDGETS` among its streams.
    """
    stream = budget_stream(workspace_id, f"session:{session_id}")
    batch.hold((stream,))
    own = select_payments().where(
        of_session(session_id), _decisions.c.state.in_(("held", "captured"))
    )
    for row in batch.read(own.order_by(_decisions.c.id)).all():
        batch.enter(stream, _entry(payment_from_row(row)))
    changed(batch, workspace_id, session_id)


def stored_limits(
    read: Read, workspace_id: str, wanted: Collection[str] | None = None
) -> dict[str, BudgetLimits]:
    """The budgets that are in force in a workspace, or the `wanted` of them, by their ids.

    Raises:
        Unavailable: a row does not hold a budget, so nobody knows what it would allow.
    """
    rows = sa.select(_budgets).where(
        _budgets.c.workspace_id == workspace_id, _budgets.c.limits_json.is_not(None)
    )
    if wanted is not None:
        rows = rows.where(_budgets.c.id.in_(wanted))
    return {row.id: read_limits(row.id, row.limits_json) for row in read(rows)}


def read_limits(budget_id: str, limits_json: str) -> BudgetLimits:
    """The limits that a row holds.

    Raises:
        Unavailable: it does not hold limits.
    """
    try:
        limits = BudgetLimits(**decode_object(limits_json.encode()))
        limits.caps()  # refuses what is no amount
    except (CanonicalError, TypeError, AssertionError) as error:
        raise Unavailable(
            f"budget {budget_id} is damaged in the database: {error!r}", code="budget_damaged"
        ) from error
    return limits


def _enter_past(batch: Batch, stream: str, workspace_id: str, budget_id: str) -> None:
    """Enter what was paid before there was the budget, and is held or captured."""
    of_whom = [_decisions.c.workspace_id == workspace_id]
    if budget_id != "workspace":
        of_whom.append(_sessions.c.agent_id == budget_id.removeprefix("agent:"))
    past = (
        sa.select(
            *(_decisions.c[name] for name in ("workspace_id", "session_id", "session_type")),
            *(_decisions.c[name] for name in ("label", "number", "decided_ms")),
            sa.null().label("merchant"),
            sa.null().label("pay_to"),
            sa.null().label("token"),
            sa.case((_held, _decisions.c.amount), else_=_decisions.c.captured).label("amount"),
            _held.label("held"),
            sa.case((_held, _decisions.c.expires_ms)).label("expires_ms"),
        )
        .join(_sessions, _sessions.c.id == _decisions.c.session_id)
        .where(*of_whom, _decisions.c.state.in_(("held", "captured")))
        .order_by(_decisions.c.decided_ms, _decisions.c.session_id, _decisions.c.number)
    )
    for row in batch.read(past).mappings().all():
        batch.enter(stream, dict(row))


def _entry(payment: Payment) -> dict[str, Any]:
    held = payment.state == "held"
    return {
        **payment.stream.columns(),
        "session_id": payment.session_id,
        "number": payment.number,
        "decided_ms": payment.decided_ms,
        "merchant": payment.request["merchant"],
        "pay_to": pay_to(payment.request),
        "token": payment.request["token"],
        "amount": payment.amount if held else payment.captured,
        "held": held,
        "expires_ms": payment.expires_ms if held else None,
    }


def _request(row: Mapping[Any, Any]) -> PaymentRequest:
    token = row["token"] or _UNKNOWN_TOKEN
    return PaymentRequest(
        amount=row["amount"],
        merchant=row["merchant"],
        token=token,
        chain=token.partition("/")[0],
        token_priced=True,
        pay_to=row["pay_to"],
    )
