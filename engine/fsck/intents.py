"""The payment intents of a workspace, as its records make them, and the payments made for them."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError, decode_object, encode
from engine.audit.record import Record
from engine.audit.rest import rest_hash
from engine.db.intents import PaymentIntent
from engine.db.tables import Decision, Session, table
from engine.fsck.events import Event
from engine.fsck.finding import UNSAID, Findings, Row, stored
from engine.ledger.intent import LINK, told
from engine.ledger.payment import parse_payment_id, payment_id

_decisions = table(Decision)
_intents = table(PaymentIntent)
_sessions = table(Session)

_AFTER = {
    "waiting": ("requires_payment",),
    "confirmed": ("requires_payment", "waiting"),
    "succeeded": ("confirmed",),
    "failed": ("requires_payment", "waiting", "confirmed"),
    "canceled": ("requires_payment", "confirmed"),
}
"""What can have happened last when this happens; `requires_payment` stands for nothing yet."""
_STATES = {"waiting": "processing", "confirmed": "processing"}
_ENDED = {
    "succeeded": (None, "captured"),
    "canceled": ("payment_voided", "voided"),
    "failed": ("payment_expired", "expired"),
}
"""Of an intent whose hold ended: the code that says so, and the state of the payment."""


class _Followed:
    """An intent: its row as the records make it, its records' numbers and what happened last;
    the state of each payment that was decided for it, and what was captured of the last one."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.numbers: list[int] = []
        self.last = "requires_payment"
        self.payments: dict[str, str] = {}
        self.captured = 0


class IntentRows:
    """Follows the records `intent.…` of one workspace."""

    def __init__(self, connection: sa.Connection, findings: Findings, workspace_id: str) -> None:
        self._connection = connection
        self._findings = findings
        self._workspace_id = workspace_id
        self._intents: dict[str, _Followed] = {}
        self._rest: dict[str, str] = {}

    def follow(self, record: Record, happened: str) -> Event | None:
        """Follow one; returns the event that stands beside it, if there is one."""
        body = record.body
        if happened == "created":
            followed = self._created(record)
        else:
            followed = self._intents[body["intent"]]
            if followed.last not in _AFTER[happened]:
                raise ValueError(f"{body['intent']} is {followed.last}")
            self._changed(followed, record, happened)
            followed.last = happened
        followed.numbers.append(record.seq)
        if happened == "waiting":
            return None
        return record.kind, told(followed.row, followed.captured)

    def finish(self) -> None:
        """Compare the rows, and the payments that were made for them."""
        query = sa.select(*stored(_intents)).where(_intents.c.workspace_id == self._workspace_id)
        found = {row["id"]: row for row in self._connection.execute(query).mappings()}
        by = f"the records of {self._workspace_id}"
        for intent_id, followed in self._intents.items():
            row = found.pop(intent_id, None)
            where = f"{self._workspace_id}/{intent_id}"
            wanted = followed.row | self._session(followed.row["session_id"])
            wanted["numbers_json"] = encode(followed.numbers).decode()
            self._findings.compare("payment_intents", where, wanted, row, by=by)
            if row is not None:
                self._compare_rest(where, row, self._rest[intent_id])
        for intent_id in found:
            where = f"{self._workspace_id}/{intent_id}"
            self._findings.unexpected("payment_intents", where, f"{by} tell of none")
        self._compare_payments()

    def _created(self, record: Record) -> _Followed:
        body = record.body
        if body["intent"] in self._intents:
            raise ValueError("it is there already")
        self._rest[body["intent"]] = body["rest_hash"]
        followed = self._intents[body["intent"]] = _Followed(
            {
                "workspace_id": self._workspace_id,
                "id": body["intent"],
                "agent_id": body["agent_id"],
                "amount": body["amount_micro_usd"],
                "capture_method": body["capture_method"],
                "sent_json": UNSAID,
                "secret_hash": UNSAID,
                "state": "requires_payment",
                "code": None,
                "session_id": body["session"],
                "decided_number": None,
                "created_ms": record.time_ms,
                "expires_ms": body["expires_ms"],
            }
        )
        return followed

    def _changed(self, followed: _Followed, record: Record, happened: str) -> None:
        body, row, code = record.body, followed.row, record.body["code"]
        unconfirmed = followed.last == "requires_payment"
        over = record.time_ms >= row["expires_ms"]
        if happened == "canceled" and unconfirmed:
            if code not in (None, "expired") or (code == "expired" and not over):
                raise ValueError("nothing cancels it like this")
        elif "session" in body:
            self._decided(followed, body, happened)
            if unconfirmed and over:
                raise ValueError("its time was over")
        else:
            payment = _payment(row)
            if body["payment"] != payment:
                raise ValueError(f"its payment is {payment}")
            if followed.last == "confirmed":
                wanted, followed.payments[payment] = _ENDED[happened]
                if code != wanted:
                    raise ValueError(f"a hold does not end by {code}")
                followed.captured = body["captured_micro_usd"]
            elif happened != "failed":
                raise ValueError("what waits for an approval can only fail, or be decided")
        row |= {"state": _STATES.get(happened, happened), "code": code}

    def _decided(self, followed: _Followed, body: Mapping[str, Any], happened: str) -> None:
        """A session was asked to pay; the record says how that was decided."""
        session_id, number = parse_payment_id(body["payment"])
        if body["session"] != session_id or followed.row["session_id"] not in (None, session_id):
            raise ValueError(f"{body['session']} is not the session that it is for")
        if followed.last == "confirmed":
            raise ValueError("it was decided already")
        followed.row |= {"session_id": session_id, "decided_number": number}
        followed.payments[body["payment"]] = "held" if happened == "confirmed" else "denied"

    def _session(self, session_id: str | None) -> dict[str, Any]:
        """The columns that every row about a session has."""
        if session_id is None:
            return {"session_type": None, "label": None}
        query = sa.select(_sessions.c.type, _sessions.c.label).where(_sessions.c.id == session_id)
        row = self._connection.execute(query).first()
        if row is None:
            return {"session_id": "a session that there is"}
        return {"session_type": row.type, "label": row.label}

    def _compare_rest(self, where: str, row: Row, expected: str) -> None:
        try:
            found = rest_hash(sent_json=row["sent_json"], secret_hash=row["secret_hash"])
        except (TypeError, ValueError):
            found = ""
        if found != expected:
            self._findings.add(
                "payment_intents",
                where,
                "sent_json, secret_hash",
                found=found,
                expected=expected,
                says="one of them was changed: their hash is not the one in the intent's record",
            )

    def _compare_payments(self) -> None:
        """Each payment that names an intent is one that the intent names, and ended like it."""
        wanted = {
            payment: (followed, state)
            for followed in self._intents.values()
            for payment, state in followed.payments.items()
        }
        query = (
            sa.select(*stored(_decisions))
            .where(_decisions.c.workspace_id == self._workspace_id)
            .where(_decisions.c.memo_json.contains(f'"{LINK}":"', autoescape=True))
            .execution_options(yield_per=500)
        )
        for row in self._connection.execute(query).mappings():
            try:
                named = decode_object(row["memo_json"].encode()).get(LINK)
                payment = payment_id(row["session_id"], row["number"])
            except (AttributeError, CanonicalError, TypeError, UnicodeError):
                continue  # what such a row should be is for its session to say
            told_of = wanted.pop(payment, None)
            if told_of is None or told_of[0].row["id"] != named:
                says = f"{payment} names it, and its records do not tell of that"
                self._note(named, "decided_number", says)
            else:
                self._compare_payment(payment, row, *told_of)
        for payment, (followed, _) in wanted.items():
            says = f"there is no payment {payment} that names it"
            self._note(followed.row["id"], "decided_number", says)

    def _compare_payment(self, payment: str, row: Row, followed: _Followed, state: str) -> None:
        expected = {"state": state, "amount": followed.row["amount"]}
        if state == "captured":
            expected["captured"] = followed.captured
        for column, value in expected.items():
            if row[column] != value:
                says = f"by its records {column} of {payment} is {value}, which has {row[column]}"
                self._note(followed.row["id"], "state", says)

    def _note(self, intent_id: Any, column: str, says: str) -> None:
        where = f"{self._workspace_id}/{intent_id}"
        self._findings.add("payment_intents", where, column, says=says)


def _payment(row: Mapping[str, Any]) -> str:
    return payment_id(row["session_id"], row["decided_number"])
