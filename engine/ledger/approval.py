"""An approval as the ledger shows it, and what is recorded of its life.

    waiting ──as many grants as the session requires──> granted, by a payment
       └──> denied by an operator | expired | refused by the policy

It is bound to one request (its digest), one session and one version of the session's policy.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from engine.audit.approvals import POLICY_CHANGED
from engine.audit.canonical import encode
from engine.db.database import Read
from engine.db.keys import ApiKey
from engine.db.tables import Approval as ApprovalRow
from engine.db.tables import Decision, Record, Session, table
from engine.errors import NotFound
from engine.ledger.account import Account, Waiting
from engine.ledger.ask import Ask
from engine.ledger.batch import Batch
from engine.ledger.intent import check_follows, follow_approval
from engine.ledger.payment import Payment, payment_id, stored_payment
from engine.ledger.stream import Stream

WAITING_MAX = 100
"""So many approvals of one session wait at a time; whoever asks for more is denied without one."""

State = Literal["waiting", "granted", "denied", "expired", "refused"]

_approvals = table(ApprovalRow)
_decisions = table(Decision)
_keys = table(ApiKey)
_records = table(Record)
_sessions = table(Session)
_APPROVAL_ID = re.compile(r"apr_([0-9a-z]{26})_(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Given:
    """One grant: whose key it was, and when (milliseconds).

    It `counts` while the key is not revoked, and for good if the approval ended before.
    """

    key_id: str
    at_ms: int
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval; times are milliseconds.

    `number` is that of the decision that denied the `request`, `decided_number` of the one that was
    made with the last grant. `code` says why it was refused: that decision's, or `POLICY_CHANGED`.
    """

    stream: Stream
    number: int
    digest: str
    request: Mapping[str, Any]
    policy_version: int
    required: int
    state: State
    grants: tuple[Given, ...]
    denied_by: str | None
    reason: str | None
    code: str | None
    decided_number: int | None
    requested_ms: int
    expires_ms: int
    ended_ms: int | None

    @property
    def session_id(self) -> str:
        """The session that asked."""
        return self.stream.id

    @property
    def id(self) -> str:
        """The public id; it names the session and the number of the denial in it."""
        return approval_id(self.session_id, self.number)

    @property
    def denied_payment_id(self) -> str:
        """The payment that was denied and waits."""
        return payment_id(self.session_id, self.number)

    @property
    def payment_id(self) -> str | None:
        """The payment that was decided with the last grant, whichever way."""
        number = self.decided_number
        return None if number is None else payment_id(self.session_id, number)


def approval_id(session_id: str, number: int) -> str:
    """The id of the approval that the decision in a session's record number `number` opened."""
    return f"apr_{session_id.removeprefix('sess_')}_{number}"


def parse_approval_id(text: str) -> tuple[str, int]:
    """The session id and the number of its record behind an approval id.

    Raises:
        NotFound: no approval has such an id.
    """
    match = _APPROVAL_ID.fullmatch(text)
    if match is None:
        raise NotFound("no such approval", code="approval_not_found")
    return f"sess_{match[1]}", int(match[2])


def select_approvals() -> sa.Select[Any]:
    """Approvals as `approval_from_row` reads them: each beside the request that it is for."""
    denial = sa.and_(
        _records.c.stream == _approvals.c.session_id, _records.c.seq == _approvals.c.number
    )
    return (
        sa.select(
            _approvals, _decisions.c.memo_json, _records.c.body, _sessions.c.approvals_required
        )
        .join(_records, denial)
        .join(_decisions, _decisions.c.id == _records.c.id)
        .join(_sessions, _sessions.c.id == _approvals.c.session_id)
    )


def approval_from_row(row: Any, now_ms: int) -> Approval:
    """Read a row of `select_approvals`. What is over at `now_ms` is, though nobody swept it yet."""
    request = json.loads(row.body)["body"]["request"]
    over = row.state == "waiting" and now_ms >= row.expires_ms
    return Approval(
        stream=Stream(row.workspace_id, row.session_id, row.session_type, row.label),
        number=row.number,
        digest=row.digest,
        request={**request, **json.loads(row.memo_json)},
        policy_version=row.policy_version,
        required=row.approvals_required,
        state="expired" if over else row.state,
        grants=tuple(Given(*given) for given in json.loads(row.grants_json)),
        denied_by=row.denied_by,
        reason=row.reason,
        code=row.code,
        decided_number=row.decided_number,
        requested_ms=row.requested_ms,
        expires_ms=row.expires_ms,
        ended_ms=row.expires_ms if over else row.ended_ms,
    )


def with_what_counts(read: Read, approvals: Sequence[Approval]) -> list[Approval]:
    """The same approvals, each grant marked that does not count."""
    granting = {given.key_id for each in approvals for given in each.grants}
    if not granting:
        return list(approvals)
    known = _keys.c.id.in_(granting), _keys.c.revoked_ms.is_not(None)
    rows = read(sa.select(_keys.c.id, _keys.c.revoked_ms).where(*known))
    revoked = {row.id: row.revoked_ms for row in rows}
    marked = []
    for each in approvals:
        # One that had all its grants was decided by keys that were valid then, and one that is over
        # was from its expiry on, whenever that was recorded.
        until_ms = None if each.ended_ms is None else min(each.ended_ms, each.expires_ms)
        gone = {key for key, at_ms in revoked.items() if until_ms is None or at_ms < until_ms}
        grants = tuple(replace(given, counts=given.key_id not in gone) for given in each.grants)
        marked.append(replace(each, grants=grants))
    return marked


def in_state(state: State, now_ms: int) -> sa.ColumnElement[bool]:
    """Which rows are in a state at `now_ms`, as `approval_from_row` tells it."""
    waiting, stored = _approvals.c.state == "waiting", _approvals.c.state == state
    over = _approvals.c.expires_ms <= now_ms
    if state == "waiting":
        return sa.and_(stored, sa.not_(over))
    return sa.or_(stored, sa.and_(waiting, over)) if state == "expired" else stored


# What follows runs on the writer's thread.


def approval_for(account: Account, asked: Ask) -> str | None:
    """What a request that needs an approval waits for: one that waits already, or a new one.

    None if too many wait.
    """
    waiting = account.approvals.get(asked.digest)
    if waiting is not None:
        return approval_id(account.stream.id, waiting.number)
    if len(account.approvals) >= WAITING_MAX:
        return None
    return approval_id(account.stream.id, account.records)


def request_approval(
    batch: Batch, account: Account, denied: Payment, digest: str, ttl_ms: int
) -> None:
    """Open the approval that a payment, which was just denied, is the first to wait for."""
    waiting = Waiting(denied.number, digest, account.policy_version, batch.now_ms + ttl_ms)
    batch.insert(
        _approvals,
        {
            **account.stream.columns(),
            "session_id": account.stream.id,
            "number": waiting.number,
            "digest": digest,
            "policy_version": waiting.policy_version,
            "state": "waiting",
            "grants_json": "[]",
            "denied_by": None,
            "reason": None,
            "code": None,
            "decided_number": None,
            "requested_ms": batch.now_ms,
            "expires_ms": waiting.expires_ms,
            "ended_ms": None,
        },
    )
    bound = {"policy_version": waiting.policy_version, "expires_ms": waiting.expires_ms}
    _record(batch, account, waiting, "requested", bound)


def grant_approval(batch: Batch, account: Account, before: Approval, key_id: str) -> None:
    """One more grant."""
    waiting = account.approvals[before.digest]
    _record(batch, account, waiting, "granted", {"key": key_id})
    given = [[each.key_id, each.at_ms] for each in before.grants] + [[key_id, batch.now_ms]]
    _change(batch, account, waiting, grants_json=encode(given).decode())


def use_approval(batch: Batch, account: Account, used: Waiting, payment: Payment) -> None:
    """A payment was allowed by it; that payment's record says so, and there is no other."""
    _change(
        batch,
        account,
        used,
        state="granted",
        decided_number=payment.number,
        ended_ms=batch.now_ms,
    )


def deny_approval(
    batch: Batch, account: Account, waiting: Waiting, key_id: str, reason: str | None
) -> None:
    """An operator is against it."""
    told, waited = {"key": key_id, "reason": reason}, _waited(batch, account, waiting)
    _end(batch, account, waiting, waited, "denied", told, denied_by=key_id, reason=reason)


def refuse_approval(batch: Batch, account: Account, waiting: Waiting, payment: Payment) -> None:
    """With all its grants, the payment was denied all the same."""
    code = payment.decision["code"]
    told, waited = {"code": code, "payment": payment.id}, _waited(batch, account, waiting)
    number = payment.number
    _end(batch, account, waiting, waited, "refused", told, code=code, decided_number=number)


def end_approvals(batch: Batch, account: Account) -> int:
    """End those that are over, or were asked for under another policy; returns how many."""
    over = [
        (waiting, _waited(batch, account, waiting))
        for waiting in approvals_over(account, batch.now_ms)
    ]
    for waiting, waited in over:
        if batch.now_ms >= waiting.expires_ms:
            _end(batch, account, waiting, waited, "expired", {})
        else:
            told = {"code": POLICY_CHANGED, "payment": None}
            _end(batch, account, waiting, waited, "refused", told, code=POLICY_CHANGED)
    return len(over)


def approvals_over(account: Account, now_ms: int) -> list[Waiting]:
    """Those that `end_approvals` ends."""
    return [
        waiting
        for waiting in account.approvals.values()
        if now_ms >= waiting.expires_ms or waiting.policy_version != account.policy_version
    ]


def _waited(batch: Batch, account: Account, waiting: Waiting) -> Payment:
    """The denied payment that waits. It is read, and whether its intent can follow it is found out,
    before the end of the approval is written."""
    waited = stored_payment(batch.read, account.stream.id, waiting.number)
    check_follows(batch, account.stream.workspace_id, waited.request)
    return waited


def _end(
    batch: Batch,
    account: Account,
    waiting: Waiting,
    waited: Payment,
    state: State,
    told: Mapping[str, Any],
    **values: Any,
) -> None:
    _record(batch, account, waiting, state, told)
    _change(batch, account, waiting, state=state, ended_ms=batch.now_ms, **values)
    code = told.get("code") or f"approval_{state}"
    follow_approval(batch, waited, code)


def _record(
    batch: Batch, account: Account, waiting: Waiting, what: str, told: Mapping[str, Any]
) -> None:
    """Record it, let memory follow, and tell others."""
    stream, name = account.stream, f"approval.{what}"
    approval = approval_id(stream.id, waiting.number)
    body = {"approval": approval, "digest": waiting.digest, **told}
    account.record(batch, name, body)
    account.follow_approval(name, body)
    batch.event(
        stream,
        name,
        {
            "approval_id": approval,
            "session_id": stream.id,
            "type": stream.session_type,
            "label": stream.label,
            "denied_payment_id": payment_id(stream.id, waiting.number),
            "grants": len(waiting.keys),
            "approvals_required": account.approvals_required,
            "expires_ms": waiting.expires_ms,
            "code": told.get("code"),
            "reason": told.get("reason"),
        },
    )


def _change(batch: Batch, account: Account, waiting: Waiting, **values: Any) -> None:
    ours = _approvals.c.session_id == account.stream.id, _approvals.c.number == waiting.number
    batch.update(sa.update(_approvals).where(*ours).values(**values))
