"""The tables. A row about a session carries its workspace, the session's type and its label.

Times are milliseconds since the epoch, money micro-USD, hashes raw bytes, addresses lower-case.
"""

from sqlalchemy import BigInteger, Index, Integer, Table, UniqueConstraint, text

from engine.db.acts import Act  # noqa: F401 (the schema has these, too)
from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import place as _place
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text
from engine.db.intents import PaymentIntent  # noqa: F401 (and this)
from engine.db.keys import Agent  # noqa: F401 (the schema has it too)
from engine.db.once import IdempotencyKey  # noqa: F401 (and this)
from engine.db.passkeys import Passkey  # noqa: F401 (and these)
from engine.db.settlements import Settlement  # noqa: F401 (and this)
from engine.db.webhooks import WebhookEndpoint  # noqa: F401 (and these)

_HELD = text("state = 'held'")
_WAITING = text("state = 'waiting'")
_LOWERED = text("lowered_json <> '[]'")
_OPEN = text("resolved_ms IS NULL")


class Meta(Row, table=True):
    """What this data directory belongs to: chain, contracts, log."""

    __tablename__ = "meta"
    key: str = _key()
    value: str = _text()


class Workspace(Row, table=True):
    """A tenant. `budgets_version` is that of `Shared` when its budgets were last changed."""

    __tablename__ = "workspaces"
    id: str = _key()
    name: str = _text()
    created_ms: int = _big()
    budgets_version: int = _big()


class BudgetRow(Row, table=True):
    """What an agent (`agent:` and its id) or the workspace (`workspace`) may spend in all sessions.

    `limits_json` is canonical JSON, null where the budget was cleared; `version` goes on counting.
    """

    __tablename__ = "budgets"
    workspace_id: str = _key()
    id: str = _key()
    limits_json: str | None = _text(nullable=True)
    version: int = _big()
    updated_ms: int = _big()


class Session(Row, table=True):
    """A spending session. Its parameters are in `grant_json` alone, so they cannot disagree.

    `restrictions_json` is the list that an operator set last, `policy_version` its number, and
    `restrictions_above_json` has those of sessions above (`engine.audit.restricting`).
    `lowered_json` tells the limits that were lowered on the chain (`engine.audit.lowering`).
    `paused_by` is a key or `ancestor`, while the session is paused.
    `rotates_id` is the session that its registration revokes (`engine.sessions.rotation`).
    """

    __tablename__ = "sessions"
    __table_args__ = (
        Index("sessions_by_workspace", "workspace_id", "created_ms", "id"),
        Index("sessions_by_parent", "parent_id"),
        Index("sessions_lowered", "id", sqlite_where=_LOWERED, postgresql_where=_LOWERED),
    )
    workspace_id: str = _text()
    id: str = _key()
    parent_id: str | None = _text(nullable=True)
    rotates_id: str | None = _text(nullable=True)
    type: str = _text()
    label: str | None = _text(nullable=True)
    agent_id: str = _text()
    agent_name: str | None = _text(nullable=True)
    user_wallet: str = _text()
    metadata_json: str = _text()
    state: str = _text()
    paused_by: str | None = _text(nullable=True)
    consent: str = _text()
    grant_json: str = _text()
    grant_hash: bytes = _bytes()
    restrictions_json: str = _text()
    restrictions_above_json: str = _text()
    lowered_json: str = _text()
    policy_version: int = _big()
    approvals_required: int
    owner_signature: bytes | None = _bytes(nullable=True)
    public_key: bytes = _bytes()
    token_id: bytes = _bytes(unique=True)
    mint_pkp: bool
    secret_hash: bytes = _bytes(unique=True)
    created_ms: int = _big()
    expires_ms: int = _big()
    ended_ms: int | None = _big(nullable=True)


class SessionKey(Row, table=True):
    """A session's private key, sealed by the key-encryption key."""

    __tablename__ = "session_keys"
    workspace_id: str = _text()
    session_id: str = _key()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    address: str = _text()
    sealed: bytes = _bytes()


class Decision(Row, table=True):
    """One answer to one payment request, and the life of the hold it opened, if it did.

    Its id is that of the record of what was asked and answered, `number` that record's in the
    session; `memo_json` is what no rule looks at. `expires_ms` is null where only the chain ends
    the hold. Rows stand in the order of their records and are found through them: an index on what
    is spread at random (sessions, keys) would be rewritten all over the file; one is enough.
    """

    __tablename__ = "decisions"
    __table_args__ = (
        Index("decisions_by_workspace", "workspace_id", "id"),
        Index("decisions_held", "expires_ms", sqlite_where=_HELD, postgresql_where=_HELD),
    )
    id: int = _place()
    workspace_id: str = _text()
    session_id: str = _text()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    number: int = _big()
    idempotency_key: str | None = _text(nullable=True)
    memo_json: str = _text()
    amount: int = _big()
    captured: int = _big()
    state: str = _text()
    decided_ms: int = _big()
    expires_ms: int | None = _big(nullable=True)
    closed_ms: int | None = _big(nullable=True)


class Approval(Row, table=True):
    """What a denied payment waits for; `number` is that of the decision that denied it.

    `grants_json` lists who granted it and when; `decided_number` is the decision that was made with
    the last grant.
    """

    __tablename__ = "approvals"
    __table_args__ = (
        Index("approvals_by_workspace", "workspace_id", "requested_ms"),
        Index("approvals_waiting", "expires_ms", sqlite_where=_WAITING, postgresql_where=_WAITING),
    )
    session_id: str = _key()
    number: int = _key(BigInteger)
    workspace_id: str = _text()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    digest: str = _text()
    policy_version: int = _big()
    state: str = _text()
    grants_json: str = _text()
    denied_by: str | None = _text(nullable=True)
    reason: str | None = _text(nullable=True)
    code: str | None = _text(nullable=True)
    decided_number: int | None = _big(nullable=True)
    requested_ms: int = _big()
    expires_ms: int = _big()
    ended_ms: int | None = _big(nullable=True)


BATCH_RECORDS_MAX = 1 << 20
"""So far apart are the ids of batches: the ids from one to the next are those of its records."""


class LogBatch(Row, table=True):
    """Records that were committed together, all of the time `time_ms`.

    `leaf_hashes` are theirs, 32 bytes each, and `seal` says that they are (`engine.ledger.seal`).
    They have their places in the tree, from `first_leaf` on, once the sequencer gave it to them.
    """

    __tablename__ = "log_batches"
    id: int = _place()
    first_leaf: int | None = _big(nullable=True, unique=True)
    time_ms: int = _big()
    leaf_hashes: bytes = _bytes()
    seal: bytes = _bytes()


class Record(Row, table=True):
    """One entry of the audit log: the exact bytes that are hashed.

    Its id is that of its batch and its position in it, added.
    """

    __tablename__ = "records"
    __table_args__ = (UniqueConstraint("stream", "seq"),)
    id: int = _place()
    workspace_id: str = _text()
    session_type: str | None = _text(nullable=True)
    label: str | None = _text(nullable=True)
    stream: str = _text()
    seq: int = _big()
    body: bytes = _bytes()


class StreamHead(Row, table=True):
    """Where a stream ends. Whoever appends to it holds this row; a single writer has no need."""

    __tablename__ = "stream_heads"
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)
    id: str = _key()
    seq: int = _big()
    prev: bytes = _bytes()
    time_ms: int = _big()


class OutboxEvent(Row, table=True):
    """An event, committed with the change that it tells of. `engine.webhooks` delivers it.

    Its id is that of the record it was written beside.
    """

    __tablename__ = "outbox"
    id: int = _place()
    workspace_id: str = _text()
    session_type: str | None = _text(nullable=True)
    label: str | None = _text(nullable=True)
    stream: str = _text()
    seq: int = _big()
    event: str = _text()
    payload_json: str = _text()
    created_ms: int = _big()


class CheckpointRow(Row, table=True):
    """A signed tree head."""

    __tablename__ = "checkpoints"
    size: int = _key(BigInteger)
    root: bytes = _bytes()
    note: str = _text()
    created_ms: int = _big()


class Anchor(Row, table=True):
    """A checkpoint on its way to the chain: sent, then mined, then final.

    `tx_hash` and `raw_tx` are of the transaction that was mined or, until then, sent last; others
    of its nonce are in `replaced_json`. `raw_tx` is empty where nobody here knows who sent it. That
    of size 0 opens the log again after a reorganisation that took its opening away.
    """

    __tablename__ = "anchors"
    size: int = _key(BigInteger)
    root: bytes = _bytes()
    state: str = _text()
    tx_hash: bytes = _bytes()
    raw_tx: bytes = _bytes()
    replaced_json: str = _text()
    block_number: int | None = _big(nullable=True)
    block_hash: bytes | None = _bytes(nullable=True)
    sent_ms: int = _big()


class ChainTransaction(Row, table=True):
    """A transaction about a session, kept before it is sent, so that there is only one."""

    __tablename__ = "chain_transactions"
    session_id: str = _key()
    action: str = _key()
    workspace_id: str = _text()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    tx_hash: bytes = _bytes()
    raw_tx: bytes = _bytes()
    sent_ms: int = _big()


class ChainBlock(Row, table=True):
    """A block that was read, kept so that a reorganisation is seen and rolled back."""

    __tablename__ = "chain_blocks"
    number: int = _key(BigInteger)
    hash: bytes = _bytes()
    parent_hash: bytes = _bytes()
    timestamp_s: int = _big()


class Shared(Row, table=True):
    """What the processes that share a database tell each other. One row, `id` 1.

    The one that leads tells of the chain (`time_ms` to `fault`). `wanted_size` is the size of the
    log that somebody wants to see anchored, `budgets_version` counts changes of budgets.
    """

    __tablename__ = "shared"
    id: int = _key(Integer)
    time_ms: int = _big()
    read_ms: int | None = _big(nullable=True)
    doubt: str | None = _text(nullable=True)
    doubt_code: str | None = _text(nullable=True)
    fault: str | None = _text(nullable=True)
    wanted_size: int = _big()
    budgets_version: int = _big()


class BudgetEntry(Row, table=True):
    """How much of one payment counts under a budget, from this entry on: micro-USD, 0 if none.

    While it is `held` another entry follows, or `expires_ms` passes if there is that. `budget` is
    as the ledger names it; merchant, payee and token are there where the budget has a cap on one.
    """

    __tablename__ = "budget_entries"
    budget: str = _key()
    seq: int = _key(BigInteger)
    workspace_id: str = _text()
    session_id: str = _text()
    session_type: str = _text()
    label: str | None = _text(nullable=True)
    number: int = _big()
    decided_ms: int = _big()
    merchant: str | None = _text(nullable=True)
    pay_to: str | None = _text(nullable=True)
    token: str | None = _text(nullable=True)
    amount: int = _big()
    held: bool
    expires_ms: int | None = _big(nullable=True)


class ChainEvent(Row, table=True):
    """An event of our contracts in a block of the canonical chain."""

    __tablename__ = "chain_events"
    __table_args__ = (Index("chain_events_by_subject", "subject", "block_number", "log_index"),)
    block_number: int = _key(BigInteger)
    log_index: int = _key(Integer)
    block_hash: bytes = _bytes()
    tx_hash: bytes = _bytes()
    name: str = _text()
    subject: bytes = _bytes()
    args_json: str = _text()


class DiscrepancyRow(Row, table=True):
    """Something that two of us say differently: this database, its records, the chain.

    `subject` is what it is about: a session's id, or whatever names what is none of ours. There is
    at most one open row for each kind and subject; `resolved_ms` closes it. The other columns name
    the session, or only the workspace, where it is about one.
    """

    __tablename__ = "discrepancies"
    __table_args__ = (
        Index(
            "discrepancies_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
    )
    id: str = _key()
    workspace_id: str | None = _text(nullable=True)
    session_id: str | None = _text(nullable=True)
    session_type: str | None = _text(nullable=True)
    label: str | None = _text(nullable=True)
    kind: str = _text()
    subject: str = _text()
    severity: str = _text()
    evidence_json: str = _text()
    first_seen_ms: int = _big()
    last_seen_ms: int = _big()
    resolved_ms: int | None = _big(nullable=True)


def table(model: type[Row]) -> Table:
    """The Core table behind a model."""
    found: Table = Row.metadata.tables[str(model.__tablename__)]
    return found
