"""The table of payment intents: amounts that somebody is asked to pay, and what came of it."""

from sqlalchemy import Index, text

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text

OPEN = text("state = 'requires_payment'")
"""What nobody confirmed yet; word for word, so that the index is used."""


class PaymentIntent(Row, table=True):
    """One payment intent, of `amount` micro-USD.

    `sent_json` is what else was sent when it was made: payee, token, description, metadata. Once a
    session was asked to pay, the record `decided_number` of `session_id` has the decision. `code`
    says why it failed or was canceled. `numbers_json` lists its records in the workspace's stream.
    """

    __tablename__ = "payment_intents"
    __table_args__ = (
        Index("payment_intents_open", "expires_ms", sqlite_where=OPEN, postgresql_where=OPEN),
    )
    workspace_id: str = _key()
    id: str = _key()
    agent_id: str | None = _text(nullable=True)
    amount: int = _big()
    capture_method: str = _text()
    sent_json: str = _text()
    secret_hash: bytes = _bytes(unique=True)
    state: str = _text()
    code: str | None = _text(nullable=True)
    session_id: str | None = _text(nullable=True)
    session_type: str | None = _text(nullable=True)
    label: str | None = _text(nullable=True)
    decided_number: int | None = _big(nullable=True)
    numbers_json: str = _text()
    created_ms: int = _big()
    expires_ms: int = _big()
