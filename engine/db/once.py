"""The table of what was made under idempotency keys (`engine.ledger.once`)."""

from sqlalchemy import Index

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text


class IdempotencyKey(Row, table=True):
    """A key of a `caller`, who is an operator's key or a session, and what was made under it.

    `fields_json` has a hash of each field of the request, `sealed` the secret of what was `made`.
    Rows are kept for a day.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_by_time", "created_ms"),)
    caller: str = _key()
    key: str = _key()
    fields_json: str = _text()
    made: str = _text()
    sealed: bytes = _bytes()
    created_ms: int = _big()
