"""Workspaces and their agents."""

from typing import Any

from fastapi import APIRouter

from api.rest.auth import AdminOf, EngineOf, OperatorOf
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import CreateWorkspace, RegisterAgent
from api.rest.views import time_text

router = APIRouter(route_class=ExactJsonRoute, tags=["workspaces"])


@router.post("/api/v1/workspaces", status_code=201, summary="Make a workspace")
def create_workspace(body: CreateWorkspace, engine: EngineOf, _caller: AdminOf) -> dict[str, Any]:
    """The operator key in the answer is not shown again."""
    key = engine.access.create_workspace(body.id, body.name)
    return {"id": body.id, "name": body.name, "full_key": key}


@router.post("/api/v1/agents", status_code=201, summary="Register an agent")
def register_agent(body: RegisterAgent, engine: EngineOf, caller: OperatorOf) -> dict[str, Any]:
    """Registering an agent again changes nothing."""
    new = engine.agents.register(caller.workspace_id, body.agent_id, body.name)
    return {"agent_id": body.agent_id, "registered": new}


@router.get("/api/v1/agents", summary="List agents")
def list_agents(engine: EngineOf, caller: OperatorOf) -> list[dict[str, Any]]:
    """All agents of the workspace, by id."""
    return [
        {
            "agent_id": agent.id,
            "name": agent.name,
            "created_at": time_text(agent.created_ms),
        }
        for agent in engine.agents.list(caller.workspace_id)
    ]
