"""The tables of webhooks: where events are sent, what is to be sent again, what was tried."""

from sqlalchemy import BigInteger

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text


class WebhookEndpoint(Row, table=True):
    """Where events of a workspace are sent, and how far that is.

    `sealed` is the secret that deliveries are signed with, under the key-encryption key, and
    `previous` the one before it, in use until `previous_until_ms`. Events whose place in the log is
    below `next_place` were delivered, or wait in `webhook_deliveries`. `failures` counts attempts
    since one succeeded; until `hold_until_ms` nothing new is sent.
    """

    __tablename__ = "webhook_endpoints"
    workspace_id: str = _key()
    id: str = _key()
    url: str = _text()
    events_json: str = _text()
    description: str | None = _text(nullable=True)
    active: bool
    disabled_reason: str | None = _text(nullable=True)
    sealed: bytes = _bytes()
    previous: bytes | None = _bytes(nullable=True)
    previous_until_ms: int | None = _big(nullable=True)
    created_ms: int = _big()
    next_place: int = _big()
    failures: int = _big()
    hold_until_ms: int = _big()
    succeeded_ms: int | None = _big(nullable=True)


class WebhookDelivery(Row, table=True):
    """An event that could not be delivered yet: it is tried again at `next_ms`.

    `record_id` is the event's in the outbox; `first_ms` is when it was tried first.
    """

    __tablename__ = "webhook_deliveries"
    workspace_id: str = _key()
    endpoint_id: str = _key()
    record_id: int = _key(BigInteger)
    attempts: int = _big()
    first_ms: int = _big()
    next_ms: int = _big()


class WebhookAttempt(Row, table=True):
    """What one attempt came to; of each endpoint the newest are kept.

    `number` counts the endpoint's attempts, `attempt` those of the event before this one. There is
    a `status_code`, or an `error` why there is none. `next_ms` is when it is tried again, if it is.
    """

    __tablename__ = "webhook_attempts"
    workspace_id: str = _key()
    endpoint_id: str = _key()
    number: int = _key(BigInteger)
    event_id: str = _text()
    event: str = _text()
    url: str = _text()
    status_code: int | None = _big(nullable=True)
    error: str | None = _text(nullable=True)
    took_ms: int = _big()
    attempted_ms: int = _big()
    attempt: int = _big()
    next_ms: int | None = _big(nullable=True)
