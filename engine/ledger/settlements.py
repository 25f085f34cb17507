"""How far the chain is with the payments that were signed, as it is stored.

signed ──> submitted | unknown (as reported, which nobody need believe)
   └──> pending (sent by ourselves, or in a block) ──> confirmed ──> final
            └──> orphaned (seen, and gone), failed (reverted; it can still be used)
nothing came of it in time ──> expired
the chain contradicts what was signed, for good, and an operator says so ──> accepted
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from engine.db.database import Database, Read
from engine.db.settlements import Settlement
from engine.db.tables import table
from engine.ledger.payment import Payment

State = Literal[
    "signed",
    "submitted",
    "unknown",
    "pending",
    "confirmed",
    "final",
    "orphaned",
    "failed",
    "expired",
    "accepted",
]
REPORTABLE: tuple[State, ...] = ("signed", "submitted", "unknown")
"""The states in which nothing is known but what somebody reports."""
ENDED: tuple[State, ...] = ("final", "expired", "accepted")
"""The states in which nothing of the payment's budget is held any more."""
UNSEEN: tuple[State, ...] = ("signed", "unknown", "orphaned", "failed")
"""The states in which nobody has seen or reported that the payment arrived."""

_settlements = table(Settlement)


@dataclass(frozen=True, slots=True)
class SettlementView:
    """The settlement of one payment.

    `record_id` is that of the record with all that is signed; `tx_hash` what was reported or seen.
    """

    record_id: int
    network: str
    asset: str
    state: State
    valid_before_s: int
    tx_hash: bytes | None
    block_number: int | None
    updated_ms: int


def stored_settlement(read: Read, session_id: str, number: int) -> SettlementView | None:
    """The settlement of a payment; None if that is not signed."""
    ours = _settlements.c.session_id == session_id, _settlements.c.number == number
    row = read(sa.select(_settlements).where(*ours)).first()
    return None if row is None else _view(row)


@dataclass(frozen=True, slots=True)
class Settlements:
    """Reads what is committed."""

    database: Database

    def of(self, payments: Iterable[Payment]) -> Mapping[str, SettlementView]:
        """The settlements of those payments that are signed, by the ids of the payments."""
        wanted = {
            (payment.session_id, payment.number): payment.id
            for payment in payments
            if "terms" in payment.request
        }
        if not wanted:
            return {}
        key = sa.tuple_(_settlements.c.session_id, _settlements.c.number)
        query = sa.select(_settlements).where(key.in_(wanted))
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return {wanted[row.session_id, row.number]: _view(row) for row in rows}


def _view(row: Any) -> SettlementView:
    return SettlementView(
        record_id=row.record_id,
        network=row.network,
        asset=row.asset,
        state=row.state,
        valid_before_s=row.valid_before_s,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        updated_ms=row.updated_ms,
    )
