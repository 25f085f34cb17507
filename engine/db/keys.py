"""The tables of who may ask: the keys of operators, the agents, and their keys.

Of a secret only its hash is kept, and its first characters, by which people know it again.
"""

from sqlalchemy import BigInteger, Index

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import key as _key
from engine.db.columns import raw as _bytes
from engine.db.columns import text as _text


class ApiKey(Row, table=True):
    """An operator's key."""

    __tablename__ = "api_keys"
    workspace_id: str = _text()
    id: str = _key()
    role: str = _text()
    name: str | None = _text(nullable=True)
    prefix: str = _text()
    secret_hash: bytes = _bytes(unique=True)
    created_ms: int = _big()
    revoked_ms: int | None = _big(nullable=True)


class Agent(Row, table=True):
    """A registry entry; its id is the one the operator assigned."""

    __tablename__ = "agents"
    workspace_id: str = _key()
    id: str = _key()
    name: str | None = _text(nullable=True)
    created_ms: int = _big()


class AgentKey(Row, table=True):
    """An agent's key. `scopes_json` and `ip_allowlist_json` are canonical JSON lists; an empty
    list of networks allows any address."""

    __tablename__ = "agent_keys"
    workspace_id: str = _text()
    id: str = _key()
    agent_id: str = _text()
    agent_name: str | None = _text(nullable=True)
    name: str = _text()
    scopes_json: str = _text()
    rate_limit_per_hour: int = _big()
    ip_allowlist_json: str = _text()
    metadata_json: str = _text()
    prefix: str = _text()
    secret_hash: bytes = _bytes(unique=True)
    created_ms: int = _big()
    expires_ms: int | None = _big(nullable=True)
    revoked_ms: int | None = _big(nullable=True)


class AgentKeyUse(Row, table=True):
    """One request that was made with an agent's key: its number, from 0 on, and when it was.

    Those of the last hour are kept, and the newest.
    """

    __tablename__ = "agent_key_uses"
    __table_args__ = (Index("agent_key_uses_by_time", "key_id", "at_ms"),)
    key_id: str = _key()
    number: int = _key(BigInteger)
    at_ms: int = _big()
