"""Accounts as the database has them: rebuilt from the records, and held against the rows."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.lowering import LOWERED, UNLOWERED, lowered_from_json
from engine.audit.replay import LOWERED_STATES
from engine.audit.restricting import RESTRICTED, above_from_json
from engine.db.database import of_its_rows
from engine.db.tables import Decision as DecisionRow
from engine.db.tables import Record, Session, table
from engine.errors import NotFound, Unavailable
from engine.grant import Grant
from engine.ledger.account import Account
from engine.ledger.account_rows import SessionRows, read_sessions
from engine.ledger.batch import Batch
from engine.ledger.lineage import line_above, lowered_above, policy_of, restricted_above
from engine.ledger.parameters import compare_parameters, differs_above
from engine.ledger.stream import Stream
from engine.policy.decision import STANDING_OF_STATE

_records = table(Record)
_sessions = table(Session)
_decisions = table(DecisionRow)
_decode = msgspec.json.Decoder().decode
_RESTS_ON = (
    *("grant_json", "grant_hash", "token_id", "mint_pkp"),
    *("restrictions_json", "restrictions_above_json", "lowered_json"),
)
_rests_on = attrgetter(*_RESTS_ON)
_READ_AGAIN = (RESTRICTED, "session.registered", "session.resumed")
_DAMAGE = (KeyError, ValueError, TypeError, AttributeError, msgspec.DecodeError)


def load_account(batch: Batch, session_id: str) -> Account:
    """Rebuild an account from the session's records; the rows beside them must say the same.

    Whoever could change a row could not change a record that was anchored since. The parameters
    are those that the first record tells; if row or chain have others, the session does not pay.

    Raises:
        NotFound: there is no such session.
        Unavailable: rows and records of the session contradict each other.
    """
    try:
        account = load_accounts(batch, [session_id]).get(session_id)
    except sa.exc.StatementError as error:
        if not of_its_rows(error):
            raise
        account = _damaged(session_id, error)
    if account is None:
        raise NotFound("no such session", code="session_not_found")
    if isinstance(account, Unavailable):
        raise account
    return account


def load_accounts(batch: Batch, session_ids: Collection[str]) -> dict[str, Account | Unavailable]:
    """`load_account` for many sessions; those that there are not are left out."""
    loaded: dict[str, Account | Unavailable] = {}
    for rows in read_sessions(batch.read, session_ids):
        try:
            loaded[rows.row.id] = _rebuild(batch, rows)
        except _DAMAGE as error:
            loaded[rows.row.id] = _damaged(rows.row.id, error)
        except Unavailable as error:
            loaded[rows.row.id] = error
    return loaded


def _rebuild(batch: Batch, rows: SessionRows) -> Account:
    row, first = rows.row, next(rows.entries, None)
    if first is None:
        raise ValueError("it has no records")
    record = _decode(first.body)
    told = record["body"]
    grant, policy = Grant.with_policy(told["grant"])
    restrictions, above = _decode(row.restrictions_json), _decode(row.restrictions_above_json)
    if restrictions or above:
        policy = grant.policy(restrictions, above=above.values())
    account = Account(
        Stream(row.workspace_id, row.id, row.type, row.label),
        row.agent_id,
        row.mint_pkp,
        told["grant_hash"],
        grant.session_key,
        policy,
    )
    line = line_above(rows.above.get, row.parent_id, grant)
    account.differs = compare_parameters(row, told, grant, rows.on_chain) or differs_above(line)
    account.genuine = account.differs is None
    account.rows = _digest(row, first.body)
    account.delegators = tuple(
        (f"session:{above['id']}", policy_of(above, its)) for above, its in line
    )
    account.delegates = bool(row.delegates)
    decided, beside = [], []
    for _, seq, body, number, *decision in chain((first,), rows.entries):
        if seq:
            record = _decode(body)
        if record["kind"] == "payment.decided":
            decided.append(account.records)
        if number is not None:
            beside.append((seq, number, *decision))
        account.apply(record)
    _compare(account, rows)
    _compare_decisions(account, decided, beside)
    if row.state in LOWERED_STATES:
        rows_above = [its for its, _ in line]
        if not set(lowered_above(grant, rows_above)) <= set(account.lowered):
            raise ValueError("limits that were lowered above it are not followed yet")
        if restricted_above(grant, rows_above) != account.restrictions_above:
            raise ValueError("what sessions above it were restricted to is not followed yet")
    batch.learn_end(row.id, seq, body)
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
            if record["kind"] in _READ_AGAIN:
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
    values = repr(_rests_on(row))
    return hashlib.sha256(values.encode() + first_body).digest()


def _damaged(session_id: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"session {session_id} is damaged in the database: {error!r}", code="session_damaged"
    )


def _compare(account: Account, rows: SessionRows) -> None:
    """Refuse rows that tell of another session than its records do."""
    row = rows.row
    if STANDING_OF_STATE[row.state] != account.standing:
        raise ValueError(f"its row says {row.state}, its records say {account.standing.value}")
    told = (account.restrictions, account.policy_version)
    if (tuple(_decode(row.restrictions_json)), row.policy_version) != told:
        raise ValueError("its row and its records tell of other restrictions")
    if above_from_json(row.restrictions_above_json) != account.restrictions_above:
        raise ValueError("its row and its records tell of other restrictions above it")
    if lowered_from_json(row.lowered_json) != account.lowered:
        raise ValueError("its row and its records tell of other lowered limits")
    told_of = {each.tx_hash for each in account.lowered if each.ancestor_id is None}
    if not rows.on_chain.lowered <= told_of:
        raise ValueError("limits that were lowered on the chain are not followed yet")
    if row.approvals_required != account.approvals_required:
        raise ValueError("its row and its records require other approvals")
    waiting = {(each.digest, each.number, each.expires_ms) for each in account.approvals.values()}
    if rows.waiting != waiting:
        raise ValueError("its rows and its records tell of other approvals")


def _compare_decisions(
    account: Account,
    decided: Sequence[int],
    beside: Collection[tuple[int, int, str, int, str | None]],
) -> None:
    """The same for its payments, whose idempotency keys the account then knows.

    `decided` has the numbers of the records that are decisions, `beside` the rows of decisions:
    behind the number of the record that each stands beside its number, state, amount captured and
    idempotency key.
    """
    numbers, held, captured = [], set(), 0
    for seq, number, state, spent, key in beside:
        if number != seq:
            raise ValueError("its rows and its records tell of other payments")
        numbers.append(number)
        captured += spent
        if key is not None:
            account.keys[key] = number
        if state == "held":
            held.add(number)
    if missing := set(decided).difference(numbers):
        raise ValueError(f"the row of decision {min(missing)} is missing")
    if (numbers, held, captured) != (decided, set(account.holds), account.captured):
        raise ValueError("its rows and its records tell of other payments")
