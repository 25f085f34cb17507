"""Workspaces and their agents."""

from fastapi import APIRouter

from api.rest.answers import AgentAnswer, CreatedWorkspace, RegisteredAgent
from api.rest.auth import AdminOf, EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import CreateWorkspace, RegisterAgent
from api.rest.views import time_text

router = APIRouter(
    route_class=ExactJsonRoute, tags=["workspaces"], responses=documented(401, 422, 503)
)


@router.post(
    "/api/v1/workspaces",
    status_code=201,
    summary="Make a workspace",
    responses=documented(409, 415),
)
def create_workspace(body: CreateWorkspace, engine: EngineOf, caller: AdminOf) -> CreatedWorkspace:
    """The operator key in the answer is not shown again."""
    key = engine.access.create_workspace(body.id, body.name, by=caller.key_id)
    return {"id": body.id, "name": body.name, "full_key": key}


@router.post(
    "/api/v1/agents",
    status_code=201,
    summary="Register an agent",
    responses=documented(415),
)
def register_agent(body: RegisterAgent, engine: EngineOf, caller: OperatorOf) -> RegisteredAgent:
    """Registering an agent again changes nothing."""
    where, by = caller.workspace_id, caller.key_id
    new = engine.agents.register(where, body.agent_id, body.name, by=by)
    return {"agent_id": body.agent_id, "registered": new}


@router.get("/api/v1/agents", summary="List agents")
def list_agents(engine: EngineOf, caller: OperatorOf) -> list[AgentAnswer]:
    """All agents of the workspace, by id."""
    return [
        {
            "agent_id": agent.id,
            "name": agent.name,
            "created_at": time_text(agent.created_ms),
        }
        for agent in engine.agents.list(caller.workspace_id)
    ]
