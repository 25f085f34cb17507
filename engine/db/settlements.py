"""The table of signed payments: what the chain makes of each."""

from sqlalchemy import BigInteger, Index, text
from sqlmodel import SQLModel

from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text

OPEN = text("state NOT IN ('final', 'expired', 'accepted')")
"""What nobody knows the end of yet; word for word, so that the index is used."""
NOT_COMPARED = text("compared_ms IS NULL")
"""What reconciliation did not find right for good yet; word for word, for the same reason."""


class Settlement(SQLModel, table=True):
    """One signed payment, and how far the chain is with it.

    It is the payment that record `number` of the session decides; `record_id` is the id of its
    record `payment.signed`, which has all that is signed. `amount` is in the token's smallest unit,
    as text: it can need 256 bits. What is of use for it is in blocks from `from_block` on, the
    chain's newest when it was signed. `state` is one of `engine.ledger.settlements.State`. A block
    is told only where one was seen. `compared_ms` is when reconciliation found the end right in
    blocks that the signature could not be used after.
    """

    __tablename__ = "settlements"
    __table_args__ = (
        Index("settlements_open", "network", sqlite_where=OPEN, postgresql_where=OPEN),
        Index(
            "settlements_not_compared",
            "network",
            sqlite_where=NOT_COMPARED,
            postgresql_where=NOT_COMPARED,
        ),
    )
    session_id: str = _key()
    number: int = _key(BigInteger)
    workspace_id: str = _text()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    record_id: int = _big(unique=True)
    network: str = _text()
    asset: str = _text()
    payer: str = _text()
    pay_to: str = _text()
    amount: str = _text()
    nonce: bytes = _bytes(unique=True)
    valid_before_s: int = _big()
    from_block: int = _big()
    state: str = _text()
    tx_hash: bytes | None = _bytes(nullable=True)
    block_number: int | None = _big(nullable=True)
    block_hash: bytes | None = _bytes(nullable=True)
    updated_ms: int = _big()
    compared_ms: int | None = _big(nullable=True)
