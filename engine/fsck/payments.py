"""The payments and approvals of one session as its records tell them: rows, and events beside them.

An allowed payment is kept in mind until its hold ends; every other row is compared at once.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.audit.canonical import CanonicalError, decode_object, encode
from engine.audit.record import Record
from engine.fsck.events import Event, compare_event
from engine.fsck.finding import UNSAID, Findings
from engine.fsck.settlements import Settlements
from engine.fsck.streams import Entry
from engine.ledger.account import GOES_ON
from engine.ledger.approval import approval_id
from engine.ledger.payment import payment_id
from engine.ledger.stream import Stream
from engine.policy.rules import WINDOW_RULES

_NAMES = {"held": "created", "captured": "confirmed"}
_NO_CAPTURE = ("payment.voided", "payment.expired")


@dataclass(slots=True)
class _Open:
    """A payment whose hold is open: its row as it is and as it will be, and what events tell."""

    id: int
    found: Mapping[str, Any] | None
    row: dict[str, Any]
    approval: str | None
    code: str


class Approvals:
    """The approvals of one session, by the number of the decision that asked for each."""

    def __init__(self, stream: Stream, required: int) -> None:
        self._stream = stream
        self._required = required
        self._rows: dict[int, dict[str, Any]] = {}
        self._grants: dict[int, list[list[Any]]] = {}

    def follow(self, record: Record) -> Event:
        """Follow a record about an approval; returns the event beside it."""
        body, what = record.body, record.kind.removeprefix("approval.")
        number = _number(body["approval"])
        if what == "requested":
            self._rows[number] = self._requested(record, number)
            self._grants[number] = []
        row, grants = self._rows[number], self._grants[number]
        if what == "granted":
            grants.append([body["key"], record.time_ms])
            row["grants_json"] = encode(grants).decode()
        elif what != "requested":
            row |= {"state": what, "ended_ms": record.time_ms}
        if what == "denied":
            row |= {"denied_by": body["key"], "reason": body["reason"]}
        elif what == "refused":
            decided = body["payment"]
            row["code"] = body["code"]
            row["decided_number"] = None if decided is None else _number(decided)
        return record.kind, {
            "approval_id": body["approval"],
            "session_id": self._stream.id,
            "type": self._stream.session_type,
            "label": self._stream.label,
            "denied_payment_id": payment_id(self._stream.id, number),
            "grants": len(grants),
            "approvals_required": self._required,
            "expires_ms": row["expires_ms"],
            "code": body.get("code"),
            "reason": body.get("reason"),
        }

    def used(self, approval: str, record: Record) -> None:
        """A payment was allowed by it."""
        self._rows[_number(approval)] |= {
            "state": "granted",
            "decided_number": record.seq,
            "ended_ms": record.time_ms,
        }

    def compare(self, findings: Findings, rows: Iterable[Mapping[Any, Any]]) -> None:
        """Compare the rows of the session with what the records make of them."""
        found = {row["number"]: row for row in rows}
        for number, expected in self._rows.items():
            name = approval_id(self._stream.id, number)
            row = found.pop(number, None)
            findings.compare("approvals", name, expected, row, by="its records")
        for number in found:
            name = approval_id(self._stream.id, number)
            findings.unexpected("approvals", name, "no record asks for it")

    def _requested(self, record: Record, number: int) -> dict[str, Any]:
        body = record.body
        return {
            "session_id": self._stream.id,
            "number": number,
            **self._stream.columns(),
            "digest": body["digest"],
            "policy_version": body["policy_version"],
            "state": "waiting",
            "grants_json": "[]",
            "denied_by": None,
            "reason": None,
            "code": None,
            "decided_number": None,
            "requested_ms": record.time_ms,
            "expires_ms": body["expires_ms"],
            "ended_ms": None,
        }


class Payments:
    """The payments of one session."""

    def __init__(
        self, findings: Findings, stream: Stream, approvals: Approvals, settlements: Settlements
    ) -> None:
        self._findings = findings
        self._stream = stream
        self._approvals = approvals
        self._settlements = settlements
        self._open: dict[str, _Open] = {}
        self._limit_reached = False
        self._limit_frees_ms: int | None = None

    def follow(self, entry: Entry) -> None:
        """Follow a record about a payment."""
        if entry.record.kind == "payment.decided":
            self._decided(entry)
            return
        self.expect_no_decision(entry)
        if entry.record.kind in ("payment.signed", "payment.refused"):
            self.compare_event(entry, None)
            if entry.record.kind == "payment.signed":
                self._open[entry.record.body["payment"]].row["expires_ms"] = None
                self._settlements.signed(entry.id, entry.record)
            return
        self._ended(entry)
        self._settlements.ended(entry.record)

    def lives(self, record: Record) -> None:
        """Follow what a record of the session's life means to its payments."""
        if record.kind in GOES_ON:
            self._limit_reached = False

    def finish(self) -> None:
        """What is still open is held."""
        for held in self._open.values():
            self._compare(held)

    def expect_no_decision(self, entry: Entry) -> None:
        """Only a record of a decision has a row beside it."""
        if entry.decision is not None:
            self._findings.unexpected(
                "decisions", entry.id, f"record {entry.id} is {entry.record.kind}"
            )

    def compare_event(self, entry: Entry, expected: Event | None) -> None:
        """Compare the row of the outbox beside a record."""
        compare_event(self._findings, self._stream, entry, expected)

    def _decided(self, entry: Entry) -> None:
        record, body = entry.record, entry.record.body
        decision, allowed = body["decision"], body["decision"]["allowed"]
        row = {
            "id": entry.id,
            **self._stream.columns(),
            "session_id": self._stream.id,
            "number": record.seq,
            "idempotency_key": body["idempotency_key"],
            "memo_json": UNSAID,
            "amount": body["request"]["amount_micro_usd"],
            "captured": 0,
            "state": "held" if allowed else "denied",
            "decided_ms": record.time_ms,
            "expires_ms": body["hold_expires_ms"],
            "closed_ms": None if allowed else record.time_ms,
        }
        capture = self._compare_memo(entry, body)
        opened = _Open(entry.id, entry.decision, row, body["approval"], decision["code"])
        event: Event | None = None
        if allowed:
            self._open[body["payment"]] = opened
            if not capture:
                event = self._told(opened)
            if body["approval"] is not None:
                self._approvals.used(body["approval"], record)
            self._limit_reached = False
        else:
            self._compare(opened)
            if decision["rule"] in WINDOW_RULES:
                frees_ms = self._limit_frees_ms
                freed = frees_ms is not None and record.time_ms >= frees_ms
                retry_at_ms = decision["evidence"]["retry_at_ms"]
                if freed or not self._limit_reached:
                    event = "agent.session.limit_reached", self._told(opened)[1]
                    self._limit_frees_ms = retry_at_ms
                elif retry_at_ms is not None:
                    self._limit_frees_ms = retry_at_ms
                self._limit_reached = True
        self.compare_event(entry, event)

    def _ended(self, entry: Entry) -> None:
        record, body = entry.record, entry.record.body
        ended = self._open.pop(body["payment"])
        ended.row |= {
            "state": record.kind.removeprefix("payment."),
            "captured": body["captured_micro_usd"],
            "closed_ms": record.time_ms,
        }
        if record.kind in _NO_CAPTURE and body["captured_micro_usd"] != 0:
            raise ValueError("a hold that was given back captures nothing")
        self._limit_reached = False
        self._compare(ended)
        self.compare_event(entry, self._told(ended))

    def _compare(self, payment: _Open) -> None:
        self._findings.compare(
            "decisions", payment.id, payment.row, payment.found, by="the records of the payment"
        )

    def _compare_memo(self, entry: Entry, body: Mapping[str, Any]) -> bool:
        """What was sent along is in the digest of the request; returns whether to capture."""
        if entry.decision is None:
            return False
        memo = entry.decision["memo_json"]
        raw = memo.encode(errors="surrogateescape") if isinstance(memo, str) else b""
        digest = hashlib.sha256(encode(body["request"]) + raw).hexdigest()
        if digest != body["request_digest"]:
            self._findings.add(
                "decisions",
                entry.id,
                "memo_json",
                found=memo,
                expected=f"what makes the digest {body['request_digest']}",
                says=f"with it the request does not have the digest of record {entry.id}",
            )
        try:
            return decode_object(raw).get("capture") is True
        except CanonicalError:
            return False

    def _told(self, payment: _Open) -> Event:
        row = payment.row
        return f"payment.{_NAMES.get(row['state'], row['state'])}", {
            "payment_id": payment_id(self._stream.id, row["number"]),
            "approval_id": payment.approval,
            "session_id": self._stream.id,
            "type": self._stream.session_type,
            "label": self._stream.label,
            "state": row["state"],
            "amount_micro_usd": row["amount"],
            "captured_micro_usd": row["captured"],
            "code": payment.code,
        }


def _number(text: str) -> int:
    return int(text.rpartition("_")[2])
