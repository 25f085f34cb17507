"""What callers get of keys, and of what was done with them. Times are ISO 8601 in UTC."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from api.rest.answers import Pagination
from api.rest.views import time_text
from engine.ledger.acts import ActView
from engine.workspaces.agent_keys import AgentKeyView
from engine.workspaces.operator_keys import OperatorKey


class AgentKeyAnswer(TypedDict):
    """An agent's key. `full_key` is in the answer that creates it and in no other."""

    id: str
    key_prefix: str
    name: str
    agent_id: str
    agent_name: str | None
    scopes: list[str]
    rate_limit_per_hour: int
    ip_allowlist: list[str]
    agent_metadata: dict[str, Any]
    is_active: bool
    request_count: int
    last_used_at: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class CreatedAgentKey(AgentKeyAnswer):
    """A new key with its secret, which is not shown again."""

    full_key: str


class ApiKeyAnswer(TypedDict):
    """An operator's key. `full_key` is in the answer that creates it and in no other."""

    id: str
    workspace_id: str
    role: str
    name: str | None
    mode: Literal["test", "live"]
    key_prefix: str
    is_active: bool
    created_at: str
    revoked_at: str | None


class CreatedApiKey(ApiKeyAnswer):
    """A new key with its secret, which is not shown again."""

    full_key: str


class KeyRevoked(TypedDict):
    """The key is not valid any more."""

    success: Literal[True]


class ActAnswer(TypedDict):
    """An act that is on the record: record `seq` of `stream`, of which `details` is the body.

    `ip_address` is null: no record holds one.
    """

    id: str
    timestamp: str
    action: str
    actor: str
    resource_id: str
    ip_address: None
    stream: str
    seq: int
    details: Mapping[str, Any]


class ActsPage(TypedDict):
    """A page of acts, the newest first."""

    data: list[ActAnswer]
    pagination: Pagination


def agent_key_json(key: AgentKeyView, now_ms: int) -> AgentKeyAnswer:
    """An agent's key, as it is at `now_ms`."""
    over = key.expires_ms is not None and now_ms >= key.expires_ms
    return {
        "id": key.id,
        "key_prefix": key.prefix,
        "name": key.name,
        "agent_id": key.agent_id,
        "agent_name": key.agent_name,
        "scopes": list(key.scopes),
        "rate_limit_per_hour": key.rate_limit_per_hour,
        "ip_allowlist": list(key.ip_allowlist),
        "agent_metadata": json.loads(key.metadata_json),
        "is_active": key.revoked_ms is None and not over,
        "request_count": key.requests,
        "last_used_at": _time(key.last_used_ms),
        "created_at": time_text(key.created_ms),
        "expires_at": _time(key.expires_ms),
        "revoked_at": _time(key.revoked_ms),
    }


def api_key_json(key: OperatorKey) -> ApiKeyAnswer:
    """An operator's key."""
    return {
        "id": key.id,
        "workspace_id": key.workspace_id,
        "role": key.role,
        "name": key.name,
        "mode": "live" if key.live else "test",
        "key_prefix": key.prefix,
        "is_active": key.revoked_ms is None,
        "created_at": time_text(key.created_ms),
        "revoked_at": _time(key.revoked_ms),
    }


def act_json(act: ActView) -> ActAnswer:
    """An act."""
    return {
        "id": f"log_{act.id}",
        "timestamp": time_text(act.time_ms),
        "action": act.kind,
        "actor": act.actor,
        "resource_id": act.resource_id,
        "ip_address": None,
        "stream": act.stream,
        "seq": act.seq,
        "details": act.told,
    }


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else time_text(milliseconds)
