"""The keys of agents: which calls an agent's software may make, how often, and from where.

A key never pays by itself. What pays is a session, by its token; the key beside it says which calls
its holder may make, and alone it shows what the sessions of its agent did (`SCOPES`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Literal, get_args

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.audit.rest import rest_hash
from engine.db.database import Database, Read
from engine.db.keys import AgentKey, AgentKeyUse
from engine.db.tables import table
from engine.errors import Conflict, InvalidInput, NotFound
from engine.identifiers import secret_hash
from engine.ledger.batch import Batch
from engine.ledger.once import Once, made_once
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.workspaces.access import SHOWN_PREFIX_CHARACTERS
from engine.workspaces.agents import check_agent_id, ensure_agent

AGENT_KEY_PREFIX = "zai_test_"
LIVE_AGENT_KEY_PREFIX = "zai_live_"
"""As of the operator's key that it is made with."""

Scope = Literal[
    "full",
    "read_only",
    "create_payments",
    "manage_escrow",
    "create_subscriptions",
    "manage_installments",
    "read_analytics",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may be for; which calls each opens is one table of the REST interface."""
DEFAULT_SCOPES: tuple[Scope, ...] = ("create_payments",)
DEFAULT_RATE_LIMIT_PER_HOUR = 1_000
RATE_LIMIT_PER_HOUR_MAX = 100_000
NETWORKS_MAX = 64
LIFE_MAX_S = 10 * 366 * 86_400
AGENT_KEYS_MAX = 1_000
"""So many keys of a workspace are valid at a time."""

_keys = table(AgentKey)
_uses = table(AgentKeyUse)


@dataclass(frozen=True, slots=True)
class NewAgentKey:
    """What an operator asks for. `lifetime_s` None: until it is revoked; no networks: any."""

    name: str
    agent_id: str
    agent_name: str | None = None
    scopes: Sequence[Scope] = DEFAULT_SCOPES
    rate_limit_per_hour: int = DEFAULT_RATE_LIMIT_PER_HOUR
    ip_allowlist: Sequence[str] = ()
    lifetime_s: int | None = None
    metadata_json: str = "{}"
    live: bool = False


@dataclass(frozen=True, slots=True)
class AgentKeyView:
    """A key, without its secret; `prefix` are its first characters. Times are milliseconds.

    `requests` is how many were made with it, `last_used_ms` when the last one was.
    """

    workspace_id: str
    id: str
    agent_id: str
    agent_name: str | None
    name: str
    scopes: tuple[str, ...]
    rate_limit_per_hour: int
    ip_allowlist: tuple[str, ...]
    metadata_json: str
    prefix: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    requests: int = field(default=0)
    last_used_ms: int | None = field(default=None)


class AgentKeys:
    """Makes, lists and revokes them; each change is a record of the workspace, and an event."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def create(
        self, workspace_id: str, new: NewAgentKey, *, by: str, once: Once | None = None
    ) -> tuple[AgentKeyView, str]:
        """Make a key, and register its agent if it is new; returns the key and its secret, which
        is not shown again but to `once`.

        Raises:
            InvalidInput: naming the field.
            Conflict: the workspace has too many keys that are valid, or the idempotency key was
                used for another request.
        """
        check_agent_id(new.agent_id)
        if not 0 < new.rate_limit_per_hour <= RATE_LIMIT_PER_HOUR_MAX:
            raise InvalidInput("rate_limit_per_hour", f"must be 1 to {RATE_LIMIT_PER_HOUR_MAX}")
        if not new.scopes:
            raise InvalidInput("scopes", "must name one at least")
        if new.lifetime_s is not None and not 0 < new.lifetime_s <= LIFE_MAX_S:
            raise InvalidInput("expires_in_seconds", f"must be 1 to {LIFE_MAX_S}")
        networks = _networks(new.ip_allowlist)

        def make(batch: Batch) -> tuple[AgentKeyView, str]:
            return self._create(batch, workspace_id, new, networks, by)

        def find(batch: Batch, made: str) -> AgentKeyView:
            return _found(batch.read, workspace_id, made)

        return self._writer.call(made_once(once, make, find), workspace_id)

    def page(
        self, workspace_id: str, *, agent_id: str | None, offset: int, limit: int
    ) -> tuple[list[AgentKeyView], int]:
        """Keys of a workspace, or of one agent, from `offset` on, revoked ones too and the newest
        first, and how many there are."""
        where = [_keys.c.workspace_id == workspace_id]
        if agent_id is not None:
            where.append(_keys.c.agent_id == agent_id)
        query = (
            _select()
            .where(*where)
            .order_by(_keys.c.created_ms.desc(), _keys.c.id.desc())
            .offset(offset)
            .limit(limit)
        )
        count = sa.select(sa.func.count()).select_from(_keys).where(*where)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            return [_view(row) for row in rows], connection.execute(count).scalar_one()

    def revoke(self, workspace_id: str, key_id: str, *, by: str) -> None:
        """Make a key invalid at once and for good; again changes nothing.

        Raises:
            NotFound: absent, or of another workspace.
        """

        def command(batch: Batch) -> None:
            key = _found(batch.read, workspace_id, key_id)
            if key.revoked_ms is not None:
                return
            batch.update(
                sa.update(_keys).where(_keys.c.id == key_id).values(revoked_ms=batch.now_ms)
            )
            told = {"key": key_id, "agent_id": key.agent_id, "name": key.name}
            stream = workspace_stream(workspace_id)
            batch.record(stream, "agent.key.revoked", {**told, "by": by})
            batch.event(stream, "agent.key.revoked", told)

        self._writer.call(command, workspace_id)

    def _create(
        self,
        batch: Batch,
        workspace_id: str,
        new: NewAgentKey,
        networks: list[str],
        by: str,
    ) -> tuple[AgentKeyView, str]:
        if _valid(batch, workspace_id) >= AGENT_KEYS_MAX:
            raise Conflict(
                f"the workspace has {AGENT_KEYS_MAX} agent keys that are valid; revoke one",
                code="too_many_agent_keys",
            )
        ensure_agent(batch, workspace_id, new.agent_id, new.agent_name, by=by)
        prefix = LIVE_AGENT_KEY_PREFIX if new.live else AGENT_KEY_PREFIX
        secret = batch.identifiers.secret(prefix)
        life_ms = None if new.lifetime_s is None else new.lifetime_s * 1_000
        told: dict[str, Any] = {
            "key": batch.identifiers.new("ak"),
            "agent_id": new.agent_id,
            "name": new.name,
            "scopes": list(dict.fromkeys(new.scopes)),
            "rate_limit_per_hour": new.rate_limit_per_hour,
            "ip_allowlist": networks,
            "expires_ms": None if life_ms is None else batch.now_ms + life_ms,
        }
        rest = {
            "agent_name": new.agent_name,
            "metadata_json": new.metadata_json,
            "prefix": secret[:SHOWN_PREFIX_CHARACTERS],
            "secret_hash": secret_hash(secret),
        }
        batch.insert(_keys, key_row(workspace_id, told, batch.now_ms) | rest)
        stream = workspace_stream(workspace_id)
        batch.record(
            stream, "agent.key.created", {**told, "by": by, "rest_hash": rest_hash(**rest)}
        )
        event = {name: told[name] for name in ("key", "agent_id", "name")}
        batch.event(stream, "agent.key.created", event)
        return _found(batch.read, workspace_id, told["key"]), secret


def key_row(workspace_id: str, told: dict[str, Any], created_ms: int) -> dict[str, Any]:
    """What the record of a key's creation tells of its row."""
    return {
        "workspace_id": workspace_id,
        "id": told["key"],
        "agent_id": told["agent_id"],
        "name": told["name"],
        "scopes_json": encode(told["scopes"]).decode(),
        "rate_limit_per_hour": told["rate_limit_per_hour"],
        "ip_allowlist_json": encode(told["ip_allowlist"]).decode(),
        "created_ms": created_ms,
        "expires_ms": told["expires_ms"],
        "revoked_ms": None,
    }


def _networks(texts: Sequence[str]) -> list[str]:
    """Addresses and networks (CIDR, RFC 4632) in their usual spelling, each once."""
    if len(texts) > NETWORKS_MAX:
        raise InvalidInput("ip_allowlist", f"has more than {NETWORKS_MAX} entries")
    found = []
    for place, text in enumerate(texts):
        try:
            found.append(str(ip_network(text)))
        except ValueError as error:
            raise InvalidInput(f"ip_allowlist[{place}]", str(error)) from error
    return list(dict.fromkeys(found))


def _select() -> sa.Select[Any]:
    """Keys with their last use."""
    newest = sa.select(sa.func.max(_uses.c.number)).where(_uses.c.key_id == _keys.c.id)
    last = sa.and_(
        _uses.c.key_id == _keys.c.id, _uses.c.number == newest.correlate(_keys).scalar_subquery()
    )
    return sa.select(_keys, _uses.c.number, _uses.c.at_ms).outerjoin_from(_keys, _uses, last)


def _found(read: Read, workspace_id: str, key_id: str) -> AgentKeyView:
    ours = _keys.c.id == key_id, _keys.c.workspace_id == workspace_id
    row = read(_select().where(*ours)).first()
    if row is None:
        raise NotFound("no such agent key", code="agent_key_not_found")
    return _view(row)


def _view(row: Any) -> AgentKeyView:
    return AgentKeyView(
        workspace_id=row.workspace_id,
        id=row.id,
        agent_id=row.agent_id,
        agent_name=row.agent_name,
        name=row.name,
        scopes=tuple(json.loads(row.scopes_json)),
        rate_limit_per_hour=row.rate_limit_per_hour,
        ip_allowlist=tuple(json.loads(row.ip_allowlist_json)),
        metadata_json=row.metadata_json,
        prefix=row.prefix,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
        requests=0 if row.number is None else row.number + 1,
        last_used_ms=row.at_ms,
    )


def _valid(batch: Batch, workspace_id: str) -> int:
    count: int = batch.read(
        sa.select(sa.func.count()).where(
            _keys.c.workspace_id == workspace_id,
            _keys.c.revoked_ms.is_(None),
            sa.or_(_keys.c.expires_ms.is_(None), _keys.c.expires_ms > batch.now_ms),
        )
    ).scalar_one()
    return count
