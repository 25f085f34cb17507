"""A payment as the ledger shows it: a decision and, if it was allowed, the life of its hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.audit.canonical import decode_object
from engine.errors import Conflict, NotFound
from engine.ledger.stream import Stream

State = Literal["denied", "held", "captured", "voided", "expired"]

_PAYMENT_ID = re.compile(r"pay_([0-9a-z]{26})_(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment. Amounts are micro-USD, times milliseconds.

    `decision` is the answer that was given then; `replayed` says that this is not its first time.
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
    replayed: bool = False

    @property
    def session_id(self) -> str:
        """The session that asked."""
        return self.stream.id

    def check_same_request(self, stored: Mapping[str, Any]) -> None:
        """Refuse an idempotency key that comes back with another request.

        Raises:
            Conflict: `field` names what differs.
        """
        # Whether a token has a price is the server's setting and not what the caller asked.
        for name in sorted((stored.keys() | self.request.keys()) - {"token_priced"}):
            if stored.get(name) != self.request.get(name):
                raise Conflict(
                    f"this idempotency key was used for another request: {name} differs",
                    code="idempotency_key_reused",
                    field=name,
                )

    @property
    def id(self) -> str:
        """The public id; it names the session and the number of the decision in it."""
        return payment_id(self.session_id, self.number)


def payment_id(session_id: str, number: int) -> str:
    """The id of a session's decision number `number`."""
    return f"pay_{session_id.removeprefix('sess_')}_{number}"


def parse_payment_id(text: str) -> tuple[str, int]:
    """The session id and decision number behind a payment id.

    Raises:
        NotFound: no payment has such an id.
    """
    match = _PAYMENT_ID.fullmatch(text)
    if match is None:
        raise NotFound("no such payment", code="payment_not_found")
    return f"sess_{match[1]}", int(match[2])


def payment_from_row(row: Any, *, replayed: bool = False) -> Payment:
    """Read a row of the decisions table."""
    return Payment(
        stream=Stream(row.workspace_id, row.session_id, row.session_type, row.label),
        number=row.number,
        request=decode_object(row.request_json.encode()),
        decision=decode_object(row.decision_json.encode()),
        state=row.state,
        amount=row.amount,
        captured=row.captured,
        decided_ms=row.decided_ms,
        expires_ms=row.expires_ms,
        closed_ms=row.closed_ms,
        replayed=replayed,
    )
