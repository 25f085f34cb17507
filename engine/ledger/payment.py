"""A payment as the ledger shows it: a decision and, if it was allowed, the life of its hold."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from engine.db.database import ROWS_TOGETHER, Read
from engine.db.tables import Decision, Record, table
from engine.errors import NotFound
from engine.ledger.stream import Stream
from engine.policy.decision import Remaining

State = Literal["denied", "held", "captured", "voided", "expired"]

_decisions = table(Decision)
_records = table(Record)
_PAYMENT_ID = re.compile(r"pay_([0-9a-z]{26})_(0|[1-9][0-9]{0,17})")


class Payment(msgspec.Struct, frozen=True, eq=False):  # one is made for every decision
    """One payment. Amounts are micro-USD, times milliseconds.

    `number` is that of the record in the session that has the decision, `decision` the answer that
    was given then; `replayed` says that this is not its first time.
    `left` is what the limits leave at the moment of this answer, None if that is the decision's.
    `approval_id` is what a denied one waits for, or what any other was decided by. What is held
    without an end (`expires_ms`) is signed.
    """

    stream: Stream
    number: int
    request: Mapping[str, Any]
    decision: Mapping[str, Any]
    state: State
    amount: int
    captured: int
    decided_ms: int
    expires_ms: int | None
    closed_ms: int | None
    approval_id: str | None = None
    replayed: bool = False
    left: Remaining | None = None

    __hash__ = None  # type: ignore[assignment]  # what was asked is a mapping

    def __eq__(self, other: object) -> bool:
        """The same payment in the same state, whatever the limits leave by now."""
        if not isinstance(other, Payment):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _COMPARED)

    @property
    def remaining(self) -> Mapping[str, int | None]:
        """What the limits leave at the moment of this answer, by the names in a decision."""
        left: Mapping[str, int | None] = self.decision["remaining"]
        return left if self.left is None else self.left.to_json()

    @property
    def session_id(self) -> str:
        """The session that asked."""
        return self.stream.id

    @property
    def id(self) -> str:
        """The public id; it names the session and the number of the record that decides it."""
        return payment_id(self.session_id, self.number)

    def row(self, record_id: int, key: str | None, memo_json: str) -> dict[str, Any]:
        """Its row in the table of decisions."""
        return {
            "id": record_id,
            **self.stream.columns(),
            "session_id": self.stream.id,
            "number": self.number,
            "idempotency_key": key,
            "memo_json": memo_json,
            "amount": self.amount,
            "captured": self.captured,
            "state": self.state,
            "decided_ms": self.decided_ms,
            "expires_ms": self.expires_ms,
            "closed_ms": self.closed_ms,
        }

    def end(self, settlement: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the record of its end tells; `settlement` is how the chain ended a signed one."""
        told: dict[str, Any] = {
            "payment": self.id,
            "held_micro_usd": self.amount,
            "captured_micro_usd": self.captured,
        }
        if settlement is not None:
            told["settlement"] = dict(settlement)
        return told

    def told(self) -> dict[str, Any]:
        """What an event says of it."""
        return {
            "payment_id": self.id,
            "approval_id": self.approval_id,
            "session_id": self.session_id,
            "type": self.stream.session_type,
            "label": self.stream.label,
            "state": self.state,
            "amount_micro_usd": self.amount,
            "captured_micro_usd": self.captured,
            "code": self.decision["code"],
        }


_COMPARED = tuple(name for name in Payment.__struct_fields__ if name != "left")


def payment_id(session_id: str, number: int) -> str:
    """The id of the payment that a session's record number `number` decides."""
    return f"pay_{session_id.removeprefix('sess_')}_{number}"


def parse_payment_id(text: str) -> tuple[str, int]:
    """The session id and the number of its record behind a payment id.

    Raises:
        NotFound: no payment has such an id.
    """
    match = _PAYMENT_ID.fullmatch(text)
    if match is None:
        raise NotFound("no such payment", code="payment_not_found")
    return f"sess_{match[1]}", int(match[2])


def session_of(text: str) -> tuple[str, ...]:
    """The session that a payment id names, if it is one."""
    match = _PAYMENT_ID.fullmatch(text)
    return () if match is None else (f"sess_{match[1]}",)


def select_payments() -> sa.Select[Any]:
    """Payments as `payment_from_row` reads them: each beside the record of its decision."""
    return sa.select(_decisions, _records.c.body).join(_records, _records.c.id == _decisions.c.id)


def stored_payment(
    read: Read, session_id: str, number: int, workspace_id: str | None = None
) -> Payment:
    """The payment that a session's record number `number` decides.

    Raises:
        NotFound: there is none, or not in this workspace.
    """
    query = select_payments().where(of_session(session_id, number))
    if workspace_id is not None:
        query = query.where(_decisions.c.workspace_id == workspace_id)
    row = read(query).first()
    if row is None:
        raise NotFound("no such payment", code="payment_not_found")
    return payment_from_row(row)


def stored_payments(read: Read, session_id: str, numbers: Sequence[int]) -> list[Payment]:
    """The payments that these records of a session decide, in this order.

    Raises:
        NotFound: one of them is not there.
    """
    found = {}
    for at in range(0, len(numbers), ROWS_TOGETHER):
        some = _records.c.seq.in_(numbers[at : at + ROWS_TOGETHER])
        for row in read(select_payments().where(of_session(session_id), some)):
            found[row.number] = payment_from_row(row)
    if len(found) < len(numbers):
        raise NotFound("no such payment", code="payment_not_found")
    return [found[number] for number in numbers]


def of_session(session_id: str, number: int | None = None) -> sa.ColumnElement[bool]:
    """Which payments of `select_payments` are a session's, or the one with this number."""
    ours = _records.c.stream == session_id
    return ours if number is None else sa.and_(ours, _records.c.seq == number)


def record_id(session_id: str, number: int) -> sa.ScalarSelect[int]:
    """The id of a record of a session, and so of the payment that it decides."""
    ours = _records.c.stream == session_id, _records.c.seq == number
    return sa.select(_records.c.id).where(*ours).scalar_subquery()


def record_ids(session_id: str, numbers: Collection[int]) -> sa.Select[Any]:
    """The ids of records of a session."""
    return sa.select(_records.c.id).where(
        _records.c.stream == session_id, _records.c.seq.in_(numbers)
    )


def payment_from_row(row: Any) -> Payment:
    """Read a row of `select_payments`."""
    body = json.loads(row.body)["body"]
    return Payment(
        stream=Stream(row.workspace_id, row.session_id, row.session_type, row.label),
        number=row.number,
        request={**body["request"], **json.loads(row.memo_json)},
        decision=body["decision"],
        state=row.state,
        amount=row.amount,
        captured=row.captured,
        decided_ms=row.decided_ms,
        expires_ms=row.expires_ms,
        closed_ms=row.closed_ms,
        approval_id=body["approval"],
    )
