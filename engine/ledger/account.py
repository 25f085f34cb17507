"""One session's budget in memory: its policy, what it has used of it, and its open holds.

It is what the session's records make it, and is read again from them whenever that is in doubt.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.lowering import (
    LOWERED,
    UNLOWERED,
    Lowering,
    follow_lowering,
    lowered_from_json,
)
from engine.db.tables import Approval, Record, Session, table
from engine.db.tables import Decision as DecisionRow
from engine.errors import NotFound, Unavailable
from engine.grant import Grant
from engine.ledger.ask import read_request
from engine.ledger.lineage import line_above, policy_of
from engine.ledger.parameters import REGISTERED_STATES, compare_parameters, lowered_on_chain
from engine.ledger.stream import Stream
from engine.ledger.writer import Batch
from engine.policy.decision import STANDING_OF_STATE, PaymentRequest, Policy, Standing
from engine.policy.limits import Limits, lowest
from engine.policy.rules import WINDOW_RULES
from engine.policy.spending import Spending
from engine.policy.windows import Entry

_approvals = table(Approval)
_records = table(Record)
_sessions = table(Session)
_decisions = table(DecisionRow)
_decode = msgspec.json.Decoder().decode
_RESTS_ON = (
    *("grant_json", "grant_hash", "token_id", "mint_pkp"),
    *("restrictions_json", "lowered_json"),
)
_DAMAGE = (KeyError, ValueError, TypeError, AttributeError, msgspec.DecodeError)


@dataclass(slots=True)
class Hold:
    """An open authorization: budget that is taken until it is captured, voided or expires.

    `number` is that of the record that decided it. Once its payment is signed only the chain ends
    it, and `expires_ms` is None. `digest` is that of a request with terms to sign.
    """

    number: int
    entry: Entry
    expires_ms: int | None
    digest: str | None = None


@dataclass(slots=True)
class Waiting:
    """An approval that waits for the grants of operators; `keys` are those that granted it.

    `number` is that of the record with the decision that it was opened by.
    """

    number: int
    digest: str
    policy_version: int
    expires_ms: int
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """See the module. A payment is known by the number of the record that decided it.

    `address` is that of the session's key. `holds` is by number, and `keys` has it for each
    idempotency key that was used. `captured` is micro-USD in all. `restrictions` are what the
    records tell of them; those in force are in `policy`, from the beginning, so that a cap that was
    set later counts all payments.
    """

    stream: Stream
    agent_id: str
    on_chain: bool
    grant_hash: str
    address: str
    policy: Policy
    standing: Standing = Standing.MISMATCH
    genuine: bool = False
    """Whether the parameters are those of its row, of its first record and of the chain."""
    differs: Mapping[str, str | None] | None = None
    """If not, what each of these says (`engine.ledger.parameters`)."""
    rows: bytes = b""
    """The digest of what was read of its row and its first record."""
    records: int = 0
    """How many records of its stream it has followed."""
    captured: int = 0
    spending: Spending = field(init=False)
    holds: dict[int, Hold] = field(default_factory=dict)
    to_sign: dict[str, list[int]] = field(default_factory=dict)
    """The holds of payments that are signed, or can be, by the digests of their requests."""
    keys: dict[str, int] = field(default_factory=dict)
    limit_reached: bool = False
    delegators: tuple[tuple[str, Policy], ...] = ()
    """The budgets `session:…` of the sessions that it descends from, the nearest first."""
    delegates: bool = False
    """Whether there are sessions beneath it."""
    restrictions: tuple[str, ...] = ()
    policy_version: int = 1
    lowered: tuple[Lowering, ...] = ()
    """The limits that the records tell were lowered on the chain."""
    approvals_required: int = 1
    approvals: dict[str, Waiting] = field(default_factory=dict)
    """Those that wait, by the digest of the request."""
    _granted: Limits = field(init=False)
    _expiries: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spending = Spending(self.policy)
        self._granted = self.policy.limits

    def record(self, batch: Batch, kind: str, body: dict[str, Any]) -> int:
        """Append to the log what the account is about to follow; returns the record's id."""
        self.records += 1
        return batch.record(self.stream, kind, body)

    def decided(
        self,
        number: int,
        now_ms: int,
        request: PaymentRequest,
        *,
        allowed: bool,
        rule: str,
        expires_ms: int | None,
        approved: str | None = None,
        to_sign: str | None = None,
    ) -> None:
        """A decision was made by a record; if it allows, its amount is held until `expires_ms`.

        `approved` is the digest of the request where an approval let it pass, which is used up;
        `to_sign` where the request has terms.
        """
        if allowed and expires_ms is not None:
            entry = self.spending.add(now_ms, request)
            self.holds[number] = Hold(number, entry, expires_ms, to_sign)
            if to_sign is not None:
                self.to_sign.setdefault(to_sign, []).append(number)
            heapq.heappush(self._expiries, (expires_ms, number))
            self.limit_reached = False
            if approved is not None:
                del self.approvals[approved]
        elif rule in WINDOW_RULES:
            self.limit_reached = True

    def ended(self, number: int, captured: int) -> None:
        """A hold ended with `captured` micro-USD of it spent; the rest is free at once."""
        hold = self.holds.pop(number)
        self.spending.reduce(hold.entry, captured)
        if hold.digest is not None:
            self.to_sign[hold.digest].remove(number)
            if not self.to_sign[hold.digest]:
                del self.to_sign[hold.digest]
        self.captured += captured
        self.limit_reached = False

    def signed(self, number: int) -> None:
        """The payment of a hold was signed."""
        self.holds[number].expires_ms = None

    def due(self, now_ms: int) -> Iterator[int]:
        """Take the holds that are over at `now_ms`, by number and the earliest first."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, number = heapq.heappop(self._expiries)
            hold = self.holds.get(number)
            if hold is not None and hold.expires_ms is not None:
                yield number

    def follow_approval(self, kind: str, body: Mapping[str, Any]) -> None:
        """Something was recorded of an approval."""
        digest = body["digest"]
        if kind == "approval.requested":
            number = number_of(body["approval"])
            self.approvals[digest] = Waiting(
                number, digest, body["policy_version"], body["expires_ms"]
            )
        elif kind == "approval.granted":
            self.approvals[digest].keys.append(body["key"])
        else:
            del self.approvals[digest]

    def follow_lowering(self, kind: str, body: Mapping[str, Any]) -> None:
        """Limits were lowered on the chain, or are not any more; what was paid counts as before."""
        self.lowered = follow_lowering(self.lowered, kind, body)
        limits = lowest(self._granted, *(each.limits for each in self.lowered))
        self.policy = replace(self.policy, limits=limits)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Follow one decoded record of the session, the next after those applied so far."""
        kind, body = record["kind"], record["body"]
        self.records += 1
        if kind == "payment.decided":
            decision, request = body["decision"], body["request"]
            self.decided(
                self.records - 1,
                record["time_ms"],
                read_request(request),
                allowed=decision["allowed"],
                rule=decision["rule"],
                expires_ms=body["hold_expires_ms"],
                approved=None if body["approval"] is None else body["request_digest"],
                to_sign=body["request_digest"] if "terms" in request else None,
            )
        elif kind == "payment.signed":
            self.signed(number_of(body["payment"]))
        elif kind == "payment.refused":
            pass  # no offer could be paid, so nothing was decided
        elif kind.startswith("payment."):
            self.spending.windows.advance(record["time_ms"])
            self.ended(number_of(body["payment"]), body["captured_micro_usd"])
        elif kind.startswith("approval."):
            self.follow_approval(kind, body)
        else:
            self.standing = STANDING_OF_STATE[body["state"]]
            if kind == "session.created":
                self.approvals_required = body["approvals_required"]
            if kind == "session.restricted":
                self.restrictions = tuple(body["restrictions"])
                self.policy_version = body["policy_version"]
            if kind in (LOWERED, UNLOWERED):
                self.follow_lowering(kind, body)


def number_of(id_: str) -> int:
    """The number of the record that the id of a payment or an approval names."""
    return int(id_.rpartition("_")[2])


def load_account(batch: Batch, session_id: str) -> Account:
    """Rebuild an account from the session's records; the rows beside them must say the same.

    Whoever could change a row could not change a record that was anchored since. The parameters
    are those that the first record tells; if row or chain have others, the session does not pay.

    Raises:
        NotFound: there is no such session.
        Unavailable: rows and records of the session contradict each other.
    """
    row: Any = batch.read(sa.select(_sessions).where(_sessions.c.id == session_id)).first()
    if row is None:
        raise NotFound("no such session", code="session_not_found")
    stream = Stream(row.workspace_id, session_id, row.type, row.label)
    query = sa.select(_records.c.body).where(_records.c.stream == session_id)
    bodies = batch.read(query.order_by(_records.c.seq)).scalars()
    first = next(bodies, b"")
    try:
        told = _decode(first)["body"]
        grant = Grant.from_json(told["grant"])
        policy = grant.policy(_decode(row.restrictions_json))
        account = Account(
            stream, row.agent_id, row.mint_pkp, told["grant_hash"], grant.session_key, policy
        )
        account.differs = compare_parameters(batch.read, row, told, grant)
        account.genuine = account.differs is None
        account.rows = _digest(row, first)
        account.delegators = tuple(
            (f"session:{above['id']}", policy_of(above, its))
            for above, its in line_above(batch.read, row.parent_id, grant)
        )
        beneath = sa.select(_sessions.c.id).where(_sessions.c.parent_id == session_id)
        account.delegates = batch.read(beneath.limit(1)).first() is not None
        decided = []
        for body in chain((first,), bodies):
            record = _decode(body)
            if record["kind"] == "payment.decided":
                decided.append(account.records)
            account.apply(record)
        _compare(batch, account, row, decided)
    except _DAMAGE as error:
        raise _damaged(session_id, error) from error
    return account


def follow_account(batch: Batch, account: Account) -> Account:
    """The account after what was recorded of its session since, by whomever.

    Raises:
        Unavailable: the records cannot be followed.
    """
    session_id, known = account.stream.id, account.records
    later = sa.select(_records.c.body).where(
        _records.c.stream == session_id, _records.c.seq >= account.records
    )
    keyed = (
        sa.select(_decisions.c.idempotency_key, _records.c.seq)
        .join(_records, _records.c.id == _decisions.c.id)
        .where(_records.c.stream == session_id, _records.c.seq >= known)
        .where(_decisions.c.idempotency_key.is_not(None))
    )
    try:
        for body in batch.read(later.order_by(_records.c.seq)).scalars().all():
            record = _decode(body)
            # What is newly capped counts from the start; what is newly registered is compared.
            if record["kind"] in ("session.restricted", "session.registered"):
                return load_account(batch, session_id)
            account.apply(record)
            if record["kind"] in (LOWERED, UNLOWERED):
                account.rows = _digests(batch, [session_id])[session_id]
    except _DAMAGE as error:
        raise _damaged(session_id, error) from error
    account.keys.update((row.idempotency_key, row.seq) for row in batch.read(keyed))
    return account


def changed_behind(batch: Batch, accounts: Mapping[str, Account]) -> list[str]:
    """Which of these accounts rest on rows, or on a first record, that are not what was read."""
    found = _digests(batch, accounts)
    return [each for each, account in accounts.items() if found.get(each) != account.rows]


def _digests(batch: Batch, session_ids: Collection[str]) -> dict[str, bytes]:
    columns = (_sessions.c[name] for name in ("id", *_RESTS_ON))
    first = sa.and_(_records.c.stream == _sessions.c.id, _records.c.seq == 0)
    query = sa.select(*columns, _records.c.body).join(_records, first)
    rows = batch.read(query.where(_sessions.c.id.in_(session_ids)))
    return {row.id: _digest(row, row.body) for row in rows}


def _digest(row: Any, first_body: bytes) -> bytes:
    values = [getattr(row, name) for name in _RESTS_ON]
    return hashlib.sha256(repr((values, first_body)).encode()).digest()


def _damaged(session_id: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"session {session_id} is damaged in the database: {error!r}", code="session_damaged"
    )


def _compare(batch: Batch, account: Account, row: Any, decided: Sequence[int]) -> None:
    """Refuse rows that tell of another session than its records do.

    `decided` has the numbers of the records that are decisions.
    """
    if STANDING_OF_STATE[row.state] != account.standing:
        raise ValueError(f"its row says {row.state}, its records say {account.standing.value}")
    told = (account.restrictions, account.policy_version)
    if (tuple(_decode(row.restrictions_json)), row.policy_version) != told:
        raise ValueError("its row and its records tell of other restrictions")
    if lowered_from_json(row.lowered_json) != account.lowered:
        raise ValueError("its row and its records tell of other lowered limits")
    if row.mint_pkp and row.state in REGISTERED_STATES:
        told_of = {each.tx_hash for each in account.lowered}
        if not told_of.issuperset(lowered_on_chain(batch.read, row.token_id)):
            raise ValueError("limits that were lowered on the chain are not followed yet")
    _compare_approvals(batch, account, row)
    columns = _decisions.c
    rows = batch.read(
        sa.select(
            _records.c.seq,
            *(columns.number, columns.state, columns.idempotency_key, columns.captured),
        )
        .join(_records, _records.c.id == columns.id)
        .where(_records.c.stream == account.stream.id)
        .order_by(_records.c.seq)
    )
    numbers, held, captured = [], set(), 0
    for decision in rows:
        if decision.number != decision.seq:
            raise ValueError("its rows and its records tell of other payments")
        numbers.append(decision.number)
        captured += decision.captured
        if decision.idempotency_key is not None:
            account.keys[decision.idempotency_key] = decision.number
        if decision.state == "held":
            held.add(decision.number)
    if missing := set(decided).difference(numbers):
        raise ValueError(f"the row of decision {min(missing)} is missing")
    if (numbers, held, captured) != (decided, set(account.holds), account.captured):
        raise ValueError("its rows and its records tell of other payments")


def _compare_approvals(batch: Batch, account: Account, row: Any) -> None:
    if row.approvals_required != account.approvals_required:
        raise ValueError("its row and its records require other approvals")
    columns = _approvals.c
    rows = batch.read(
        sa.select(columns.digest, columns.number, columns.expires_ms).where(
            columns.session_id == account.stream.id, columns.state == "waiting"
        )
    )
    waiting = {(each.digest, each.number, each.expires_ms) for each in account.approvals.values()}
    if {(each.digest, each.number, each.expires_ms) for each in rows} != waiting:
        raise ValueError("its rows and its records tell of other approvals")
