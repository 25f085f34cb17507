"""The settlements of one session's signed payments, as its records tell them."""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.audit.record import Record
from engine.audit.signing import is_accepted
from engine.fsck.finding import UNSAID, Findings
from engine.ledger.account import number_of
from engine.ledger.payment import payment_id
from engine.ledger.stream import Stream

_ENDED = {"payment.captured": "final", "payment.expired": "expired"}
_ENDED_STATES = (*_ENDED.values(), "accepted")
_SEEN = ("state", "tx_hash", "block_number", "block_hash")


class Settlements:
    """What was signed, and what the chain is recorded to have made of it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rows: dict[int, dict[str, Any]] = {}

    def signed(self, record_id: int, record: Record) -> None:
        """Follow a record `payment.signed`; the next that names the payment ends it."""
        body = record.body
        number = number_of(body["payment"])
        self._rows[number] = {
            "session_id": self._stream.id,
            "number": number,
            **self._stream.columns(),
            "record_id": record_id,
            "network": body["network"],
            "asset": body["asset"],
            "payer": body["from"],
            "pay_to": body["to"],
            "amount": body["amount"],
            "nonce": bytes.fromhex(body["nonce"]),
            "valid_before_s": body["valid_before_s"],
            "from_block": UNSAID,
            **dict.fromkeys(_SEEN, UNSAID),
            "updated_ms": UNSAID,
            "compared_ms": UNSAID,
        }

    def ended(self, record: Record) -> None:
        """The hold of a payment ended; of a signed one the chain says how."""
        body = record.body
        row = self._rows.get(number_of(body["payment"]))
        if row is None:
            return
        settlement = body["settlement"]
        if is_accepted(settlement):  # what was seen last is no record's
            row["state"] = "accepted"
            return
        row |= {
            "state": _ENDED[record.kind],
            "block_number": settlement["block_number"],
            "block_hash": bytes.fromhex(settlement["block_hash"].removeprefix("0x")),
        }
        if "tx_hash" in settlement:
            row["tx_hash"] = bytes.fromhex(settlement["tx_hash"].removeprefix("0x"))

    def compare(self, findings: Findings, rows: Iterable[Mapping[Any, Any]]) -> None:
        """Compare the rows of the session with what the records make of them."""
        found = {row["number"]: row for row in rows}
        for number, expected in self._rows.items():
            name, row = payment_id(self._stream.id, number), found.pop(number, None)
            findings.compare("settlements", name, expected, row, by="its records")
            if row is not None and expected["state"] is UNSAID and row["state"] in _ENDED_STATES:
                findings.add(
                    "settlements",
                    name,
                    "state",
                    found=row["state"],
                    expected="one of a payment that is open",
                    says="no record tells of its end",
                )
        for number in found:
            name = payment_id(self._stream.id, number)
            findings.unexpected("settlements", name, "no record signs it")
