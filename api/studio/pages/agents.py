"""Agents, the keys of their software, and the keys of operators."""

import json
from typing import Any, get_args

from starlette.responses import Response

from api.rest.key_answers import agent_key_json, api_key_json
from api.rest.schemas import CreateAgentKey, RegisterAgent
from api.rest.views import time_text
from api.studio.asked import Asked, PageView
from api.studio.forms import EDIT, again, lines, ticked, validated, whole
from engine.errors import NotFound
from engine.workspaces.access import SETUP_TOKEN_PREFIX, Operator
from engine.workspaces.agent_keys import (
    DEFAULT_RATE_LIMIT_PER_HOUR,
    DEFAULT_SCOPES,
    NewAgentKey,
    Scope,
)

KEYS = 100
DAY_S = 86_400
SCOPES: tuple[Scope, ...] = get_args(Scope)


def everything(asked: Asked) -> PageView:
    """All agents, and the keys that open REST."""
    engine, workspace_id = asked.engine, asked.who.workspace_id
    keys, total = engine.keys.agents.page(workspace_id, agent_id=None, offset=0, limit=KEYS)
    now_ms = asked.now_ms
    data = {
        "agents": [
            {"id": each.id, "name": each.name, "registered_at": time_text(each.created_ms)}
            for each in engine.agents.list(workspace_id)
        ],
        "agent_keys": [agent_key_json(key, now_ms) for key in keys],
        "agent_keys_total": total,
        "operator_keys": [
            api_key_json(key)
            for key in engine.keys.operators.list(workspace_id)
            if not key.prefix.startswith(SETUP_TOKEN_PREFIX)
        ],
    }
    return PageView("agents.html", "Agents and keys", data)


def register(asked: Asked) -> Response:
    """Put an agent into the registry."""
    given = {name: asked.form.get(name, "").strip() or None for name in ("agent_id", "name")}
    body = validated(RegisterAgent, {key: value for key, value in given.items() if value})
    who = asked.who
    asked.engine.agents.register(who.workspace_id, body.agent_id, body.name, by=who.key_id)
    return asked.see("/agents")


def new_key(asked: Asked) -> PageView:
    """The form of a key; filled in, what the passkey is to confirm."""
    query = asked.query
    given: dict[str, Any] = {
        "name": query.get("name", "").strip(),
        "agent_id": query.get("agent_id", "").strip(),
        "rate_limit_per_hour": query.get("rate_limit_per_hour", str(DEFAULT_RATE_LIMIT_PER_HOUR)),
        "days": query.get("days", "90"),
        "networks": query.get("networks", ""),
        "scopes": ticked(query, "scope") or list(DEFAULT_SCOPES),
    }
    asked_for = None
    if given["name"] and given["agent_id"] and EDIT not in query:
        body = _wanted(given)
        asked_for = _act(body)
        given.update(  # as it is taken, so that what is shown is what is confirmed
            name=body.name,
            agent_id=body.agent_id,
            scopes=list(body.scopes),
            rate_limit_per_hour=str(body.rate_limit_per_hour),
            days=str((body.expires_in_seconds or 0) // DAY_S or ""),
            networks="\n".join(body.ip_allowlist),
        )
    data = {
        "given": given,
        "scopes": SCOPES,
        "agents": [each.id for each in asked.engine.agents.list(asked.who.workspace_id)],
        "asked_for": asked_for,
        "again": again(query),
    }
    return PageView("new_key.html", "New key for an agent", data)


def make_key(asked: Asked) -> Response:
    """Make it, by passkey; its secret is shown once."""
    form, who = asked.form, asked.who
    given = {**form, "scopes": form.get("scopes", "").split()}
    body = _wanted(given)
    asked.check_proof(_act(body))
    new = NewAgentKey(
        name=body.name,
        agent_id=body.agent_id,
        scopes=body.scopes,
        rate_limit_per_hour=body.rate_limit_per_hour,
        ip_allowlist=body.ip_allowlist,
        lifetime_s=body.expires_in_seconds,
    )
    _, secret = asked.engine.keys.agents.create(who.workspace_id, new, by=who.key_id)
    view = everything(asked)
    view.private["secret"] = secret
    return asked.page(view)


def revoke_key(asked: Asked) -> Response:
    """An agent's key is not valid any more."""
    who = asked.who
    asked.engine.keys.agents.revoke(who.workspace_id, asked.path["key_id"], by=who.key_id)
    return asked.see("/agents")


def revoke_operator(asked: Asked) -> Response:
    """An operator's key is not valid any more; the admin's is exchanged, and not here."""
    who, key_id, operators = asked.who, asked.path["key_id"], asked.engine.keys.operators
    ours = {key.id: key for key in operators.list(who.workspace_id)}
    if key_id not in ours or ours[key_id].prefix.startswith(SETUP_TOKEN_PREFIX):
        raise NotFound("no such key", code="key_not_found")
    operators.revoke(Operator(who.workspace_id, who.key_id, admin=True), key_id)
    return asked.see("/agents")


def _wanted(given: dict[str, Any]) -> CreateAgentKey:
    days = whole(given, "days")
    told = {
        "name": given.get("name", ""),
        "agent_id": given.get("agent_id", ""),
        "scopes": given["scopes"],
        "rate_limit_per_hour": whole(given, "rate_limit_per_hour"),
        "ip_allowlist": lines(given.get("networks", "")),
        "expires_in_seconds": None if days is None else days * DAY_S,
    }
    return validated(CreateAgentKey, told)


def _act(body: CreateAgentKey) -> dict[str, str]:
    """What the passkey consents to: all of it."""
    told = body.model_dump(include={"scopes", "rate_limit_per_hour", "expires_in_seconds"})
    return {
        "act": "make an agent's key",
        "name": body.name,
        "agent": body.agent_id,
        "networks": " ".join(body.ip_allowlist),
        "terms": json.dumps(told, sort_keys=True),
    }
