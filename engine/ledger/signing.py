"""What is to be signed of a payment is recorded, and its budget is the chain's to end from then on.

The signature itself is made once this is committed, from the record, and is not kept.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from engine.audit.binding import NONCE_SALT_BYTES, payment_nonce
from engine.audit.record import Head
from engine.db.settlements import Settlement
from engine.db.tables import table
from engine.ledger.account import Account
from engine.ledger.ask import Ask
from engine.ledger.batch import Batch
from engine.ledger.payment import Payment

_settlements = table(Settlement)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to pay: what is asked of the ledger, with terms, and the chain that it is paid on.

    `from_block` and `chain_time_s` are the number and the time of that chain's newest block. A
    chain that does not answer has none (None, 0): nothing new is paid on it.
    """

    asked: Ask
    from_block: int | None
    chain_time_s: int

    @property
    def terms(self) -> dict[str, Any]:
        """What is to be signed."""
        assert self.asked.terms is not None
        return dict(self.asked.terms)


def sign_payment(
    batch: Batch, account: Account, payment: Payment, way: Way, decided: Head
) -> Payment:
    """Record what is signed of a payment that is held, and let memory follow.

    `decided` is where the session's records ended with the payment's decision. The caller sees to
    the payment's row and to the budgets above the session.
    """
    assert account.holds[payment.number].expires_ms is not None, "it was signed before"
    assert decided.seq == payment.number + 1
    assert decided.prev is not None
    assert way.from_block is not None
    terms, stream = payment.request["terms"], account.stream
    salt = batch.identifiers.random_bytes(NONCE_SALT_BYTES)
    nonce = payment_nonce(decided.prev, salt)
    valid_before_s = batch.now_ms // 1000 + terms["timeout_s"]
    record_id = account.record(
        batch,
        "payment.signed",
        {
            "payment": payment.id,
            "network": terms["network"],
            "asset": terms["asset"],
            "from": account.address,
            "to": terms["pay_to"],
            "amount": terms["amount"],
            "valid_after_s": 0,
            "valid_before_s": valid_before_s,
            "nonce": nonce.hex(),
            "salt": salt.hex(),
        },
    )
    batch.insert(
        _settlements,
        {
            "session_id": stream.id,
            "number": payment.number,
            **stream.columns(),
            "record_id": record_id,
            "network": terms["network"],
            "asset": terms["asset"],
            "payer": account.address,
            "pay_to": terms["pay_to"],
            "amount": terms["amount"],
            "nonce": nonce,
            "valid_before_s": valid_before_s,
            "from_block": way.from_block,
            "state": "signed",
            "tx_hash": None,
            "block_number": None,
            "block_hash": None,
            "updated_ms": batch.now_ms,
            "compared_ms": None,
        },
    )
    account.signed(payment.number)
    return msgspec.structs.replace(payment, expires_ms=None)
