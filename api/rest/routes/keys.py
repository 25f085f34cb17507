"""Keys: of agents, and of operators."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.rest.auth import AdminOf, EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.idempotency import WITH_KEY, IdempotencyKey, mark_replay, once
from api.rest.key_answers import (
    AgentKeyAnswer,
    ApiKeyAnswer,
    CreatedAgentKey,
    CreatedApiKey,
    KeyRevoked,
    agent_key_json,
    api_key_json,
)
from api.rest.queries import AgentKeysQuery
from api.rest.schemas import CreateAgentKey, CreateApiKey
from engine.workspaces.agent_keys import NewAgentKey

of_agents = APIRouter(
    prefix="/api/v1/agent-keys",
    route_class=ExactJsonRoute,
    tags=["keys"],
    responses=documented(401, 422, 503),
)
of_operators = APIRouter(
    prefix="/api/v1/api-keys",
    route_class=ExactJsonRoute,
    tags=["keys"],
    responses=documented(401, 422, 503),
)


@of_agents.post(
    "",
    status_code=201,
    summary="Make a key for an agent",
    responses=documented(409, 415),
    openapi_extra=WITH_KEY,
)
def create_agent_key(
    body: CreateAgentKey,
    engine: EngineOf,
    caller: OperatorOf,
    idempotency_key: IdempotencyKey,
    response: Response,
) -> CreatedAgentKey:
    """The key in the answer is shown again only to the same request under the same idempotency
    key. An agent that is new is registered."""
    new = NewAgentKey(
        name=body.name,
        agent_id=body.agent_id,
        agent_name=body.agent_name,
        scopes=body.scopes,
        rate_limit_per_hour=body.rate_limit_per_hour,
        ip_allowlist=body.ip_allowlist,
        lifetime_s=body.expires_in_seconds,
        metadata_json=body.metadata or "{}",
        live=caller.live,
    )
    asked = once(engine, caller, idempotency_key, "agent-keys", body)
    key, secret = engine.keys.agents.create(caller.workspace_id, new, by=caller.key_id, once=asked)
    mark_replay(response, asked)
    return {**agent_key_json(key, engine.clock()), "full_key": secret}


@of_agents.get("", summary="List the keys of agents, the newest first")
def list_agent_keys(
    engine: EngineOf,
    caller: OperatorOf,
    wanted: Annotated[AgentKeysQuery, Query()],
    response: Response,
) -> list[AgentKeyAnswer]:
    """Revoked ones, too. `X-Total-Count` says how many there are."""
    keys, total = engine.keys.agents.page(
        caller.workspace_id, agent_id=wanted.agent_id, offset=wanted.offset, limit=wanted.limit
    )
    response.headers["X-Total-Count"] = str(total)
    now_ms = engine.clock()
    return [agent_key_json(key, now_ms) for key in keys]


@of_agents.post(
    "/{agent_key_id}/revoke", summary="Revoke an agent's key", responses=documented(404)
)
def revoke_agent_key(agent_key_id: str, engine: EngineOf, caller: OperatorOf) -> KeyRevoked:
    """In force when this answers. Revoking it again changes nothing."""
    engine.keys.agents.revoke(caller.workspace_id, agent_key_id, by=caller.key_id)
    return {"success": True}


@of_operators.post(
    "",
    status_code=201,
    summary="Make a key for an operator",
    responses=documented(404, 409, 415),
    openapi_extra=WITH_KEY,
)
def create_api_key(
    body: CreateApiKey,
    engine: EngineOf,
    caller: AdminOf,
    idempotency_key: IdempotencyKey,
    response: Response,
) -> CreatedApiKey:
    """The key in the answer is shown again only to the same request under the same idempotency
    key. Only the admin makes keys: approvals count them."""
    asked = once(engine, caller, idempotency_key, "api-keys", body)
    live = body.mode == "live"
    key, secret = engine.keys.operators.create(
        caller, body.name, live=live, workspace_id=body.workspace_id, once=asked
    )
    mark_replay(response, asked)
    return {**api_key_json(key), "full_key": secret}


@of_operators.get("", summary="List the keys of operators, the oldest first")
def list_api_keys(engine: EngineOf, caller: OperatorOf) -> list[ApiKeyAnswer]:
    """Those of the caller's workspace, revoked ones too."""
    return [api_key_json(key) for key in engine.keys.operators.list(caller.workspace_id)]


@of_operators.post(
    "/{key_id}/rotate",
    summary="Put a new key in the place of an operator's",
    responses=documented(404, 409),
)
def rotate_api_key(key_id: str, engine: EngineOf, caller: OperatorOf) -> CreatedApiKey:
    """The old one is not valid any more when this answers. The caller's own; the admin any."""
    key, secret = engine.keys.operators.rotate(caller, key_id)
    return {**api_key_json(key), "full_key": secret}


@of_operators.post(
    "/{key_id}/revoke", summary="Revoke an operator's key", responses=documented(404, 409)
)
def revoke_api_key(key_id: str, engine: EngineOf, caller: OperatorOf) -> KeyRevoked:
    """In force when this answers. The caller's own; the admin any but the own."""
    engine.keys.operators.revoke(caller, key_id)
    return {"success": True}
