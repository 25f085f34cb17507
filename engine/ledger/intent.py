"""A payment intent as the ledger shows it, and what is recorded of its life.

    requires_payment ──a session confirms──> processing ──its hold is captured──> succeeded
       │      └──the policy denies──> failed <──the hold runs out, or no approval comes──┤
       └──canceled, or its time is over──> canceled <──the hold is voided────────────────┘

The session that confirms pays: the amount is held, or waits for operators, while the intent is
`processing`. What becomes of the payment becomes of the intent, in the same transaction. The
intent's records are in the workspace's stream, the payment's in the session's.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from engine.audit.approvals import REQUIRED_CODE
from engine.audit.canonical import encode
from engine.db.database import Read
from engine.db.intents import PaymentIntent
from engine.db.tables import table
from engine.errors import NotFound
from engine.ledger.batch import Batch
from engine.ledger.payment import (
    Payment,
    of_session,
    payment_from_row,
    payment_id,
    select_payments,
)
from engine.ledger.stream import workspace_stream

State = Literal["requires_payment", "processing", "succeeded", "canceled", "failed"]
CaptureMethod = Literal["automatic", "manual"]

LINK = "payment_intent"
"""Where a payment that is made for an intent names it, among what was sent along."""
EXPIRED = "expired"
"""Why an intent is canceled that nobody confirmed in time."""
_ENDS: Mapping[str, tuple[State, str | None]] = {
    "captured": ("succeeded", None),
    "voided": ("canceled", "payment_voided"),
    "expired": ("failed", "payment_expired"),
}
"""What the end of its payment makes of an intent, and why."""

intents = table(PaymentIntent)


@dataclass(frozen=True, slots=True)
class Intent:
    """One payment intent. `amount` is micro-USD, times are milliseconds.

    `sent` is what was sent with it that decides nothing here. `session_id` is who confirmed it, or
    who made it to be confirmed by no other. `payment` is the last decision about it; `numbers` are
    those of its records in the workspace's stream.
    """

    workspace_id: str
    id: str
    agent_id: str | None
    amount: int
    capture_method: CaptureMethod
    sent: Mapping[str, Any]
    state: State
    code: str | None
    session_id: str | None
    payment: Payment | None
    numbers: tuple[int, ...]
    created_ms: int
    expires_ms: int

    @property
    def approval_id(self) -> str | None:
        """What it waits for or waited for, if its amount needs an approval."""
        return None if self.payment is None else self.payment.approval_id

    @property
    def payment_id(self) -> str | None:
        """The payment that was decided for it; None while that waits for operators."""
        if self.payment is None or (self.state == "processing" and self.payment.state == "denied"):
            return None
        return self.payment.id

    @property
    def captured(self) -> int:
        """What was spent of it, in micro-USD."""
        return 0 if self.payment is None else self.payment.captured


def no_such_intent() -> NotFound:
    """Absent and foreign look the same."""
    return NotFound("no such payment intent", code="intent_not_found")


def one(workspace_id: str, intent_id: str) -> sa.ColumnElement[bool]:
    """Which row an intent is."""
    return sa.and_(intents.c.workspace_id == workspace_id, intents.c.id == intent_id)


def intents_from_rows(read: Read, rows: Iterable[sa.RowMapping], now_ms: int) -> list[Intent]:
    """Read rows of `intents`, with the payments that they name. What is over at `now_ms` is, though
    nobody swept it yet."""
    rows = list(rows)
    decided = [_decided(row) for row in rows if row["decided_number"] is not None]
    payments: dict[tuple[str, int], Payment] = {}
    if decided:
        # One by one: of a list of pairs SQLite would look at every record there is.
        query = select_payments().where(sa.or_(*(of_session(*each) for each in decided)))
        found = map(payment_from_row, read(query))
        payments = {(payment.session_id, payment.number): payment for payment in found}
    return [_intent(row, payments.get(_decided(row)), now_ms) for row in rows]


def _decided(row: sa.RowMapping) -> Any:
    return row["session_id"], row["decided_number"]


def _intent(row: sa.RowMapping, payment: Payment | None, now_ms: int) -> Intent:
    over = row["state"] == "requires_payment" and now_ms >= row["expires_ms"]
    return Intent(
        workspace_id=row["workspace_id"],
        id=row["id"],
        agent_id=row["agent_id"],
        amount=row["amount"],
        capture_method=row["capture_method"],
        sent=json.loads(row["sent_json"]),
        state="canceled" if over else row["state"],
        code=EXPIRED if over else row["code"],
        session_id=row["session_id"],
        payment=payment,
        numbers=tuple(json.loads(row["numbers_json"])),
        created_ms=row["created_ms"],
        expires_ms=row["expires_ms"],
    )


def in_state(state: State, now_ms: int) -> sa.ColumnElement[bool]:
    """Which rows are in a state at `now_ms`, as `intents_from_rows` tells it."""
    stored, over = intents.c.state == state, intents.c.expires_ms <= now_ms
    if state == "requires_payment":
        return sa.and_(stored, sa.not_(over))
    lapsed = sa.and_(intents.c.state == "requires_payment", over)
    return sa.or_(stored, lapsed) if state == "canceled" else stored


def told(row: Mapping[str, Any], captured: int) -> dict[str, Any]:
    """What an event says of an intent whose row this is, and of which so much was `captured`."""
    number = row["decided_number"]
    return {
        "payment_intent_id": row["id"],
        "status": row["state"],
        "amount_micro_usd": row["amount"],
        "captured_micro_usd": captured,
        "capture_method": row["capture_method"],
        "agent_id": row["agent_id"],
        "session_id": row["session_id"],
        "payment_id": None if number is None else payment_id(row["session_id"], number),
        "code": row["code"],
    }


# What follows runs on the writer's thread.


def open_intent(batch: Batch, row: dict[str, Any], by: str, rest_hash: str) -> None:
    """Write a new one down; `row` lacks the number of its record, which this adds."""
    stream = workspace_stream(row["workspace_id"])
    row["numbers_json"] = encode([batch.head(stream.id).seq]).decode()
    batch.insert(intents, row)
    batch.record(
        stream,
        "intent.created",
        {
            "intent": row["id"],
            "amount_micro_usd": row["amount"],
            "capture_method": row["capture_method"],
            "agent_id": row["agent_id"],
            "session": row["session_id"],
            "expires_ms": row["expires_ms"],
            "by": by,
            "rest_hash": rest_hash,
        },
    )
    batch.event(stream, "intent.created", told(row, 0))


def cancel_intent(batch: Batch, row: dict[str, Any], by: str | None, code: str | None) -> None:
    """End one that nobody confirmed; `by` is None where nobody asked for it."""
    _advance(batch, row, "canceled", {"by": by}, {"state": "canceled", "code": code})


def follow_payment(batch: Batch, payment: Payment) -> None:
    """A payment was decided, or ended: so is the intent that it is made for, if it is for one."""
    row = _row_of(batch, payment)
    if row is None:
        return
    first = row["decided_number"] != payment.number
    decided: dict[str, Any] = {"session": payment.session_id, "payment": payment.id}
    bound: dict[str, Any] = {
        "session_id": payment.session_id,
        "session_type": payment.stream.session_type,
        "label": payment.stream.label,
        "decided_number": payment.number,
    }
    if payment.state == "denied":
        code, approval = payment.decision["code"], payment.approval_id
        if code == REQUIRED_CODE and approval is not None:
            decided["approval"] = approval
            _advance(batch, row, "waiting", decided, bound | {"state": "processing"})
        else:
            _advance(batch, row, "failed", decided, bound | {"state": "failed", "code": code})
        return
    if first:
        _advance(batch, row, "confirmed", decided, bound | {"state": "processing"})
    if payment.state != "held":
        state, code = _ENDS[payment.state]
        ended = {"payment": payment.id, "captured_micro_usd": payment.captured}
        _advance(batch, row, state, ended, {"state": state, "code": code}, payment.captured)


def check_follows(batch: Batch, workspace_id: str, request: Mapping[str, Any]) -> None:
    """Be sure, before anything is written of a payment, that it can be told of its intent as well.

    Raises:
        Unavailable: nothing can follow the last record of the workspace, which is damaged.
    """
    if request.get(LINK) is not None:
        batch.hold((workspace_id,))
        batch.head(workspace_id)


def follow_approval(batch: Batch, waited: Payment, code: str) -> None:
    """What a denied payment waited for has ended without another: `code` says how.

    So has the intent that it was made for, unless the decision that ended it said so already.
    """
    row = _row_of(batch, waited)
    if row is not None and row["decided_number"] == waited.number:
        _advance(batch, row, "failed", {"payment": waited.id}, {"state": "failed", "code": code})


def _row_of(batch: Batch, payment: Payment) -> dict[str, Any] | None:
    """The intent that a payment is made for, as long as it is not over."""
    intent_id = payment.request.get(LINK)
    if intent_id is None:
        return None
    workspace_id = payment.stream.workspace_id
    batch.hold((workspace_id,))
    row = batch.read(sa.select(intents).where(one(workspace_id, intent_id))).mappings().first()
    if row is None or row["state"] not in ("requires_payment", "processing"):
        return None
    return dict(row)


def _advance(
    batch: Batch,
    row: dict[str, Any],
    what: str,
    body: Mapping[str, Any],
    values: dict[str, Any],
    captured: int = 0,
) -> None:
    """Record what happened, change the row and tell others; that it waits the approval tells."""
    stream = workspace_stream(row["workspace_id"])
    numbers = [*json.loads(row["numbers_json"]), batch.head(stream.id).seq]
    values = values | {"numbers_json": encode(numbers).decode()}
    row |= values
    batch.record(stream, f"intent.{what}", {"intent": row["id"], "code": row["code"], **body})
    if what != "waiting":
        batch.event(stream, f"intent.{what}", told(row, captured))
    batch.update(sa.update(intents).where(one(row["workspace_id"], row["id"])).values(**values))
