"""Budgets above the session; only operators see them, and no session changes them."""

from fastapi import APIRouter

from api.rest.answers import BudgetAnswer, Cleared
from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import SetBudget
from api.rest.views import budget_json

WORKSPACE = "/api/v1/budgets/workspace"
AGENT = "/api/v1/agents/{agent_id:path}/budget"  # an agent's id may have slashes

router = APIRouter(
    route_class=ExactJsonRoute, tags=["budgets"], responses=documented(401, 422, 503)
)


@router.get("/api/v1/budgets", summary="List budgets")
def list_budgets(engine: EngineOf, caller: OperatorOf) -> list[BudgetAnswer]:
    """The workspace's own, and those of its agents."""
    return [budget_json(view) for view in engine.budgets.list(caller.workspace_id)]


@router.put(WORKSPACE, summary="Set the budget of the workspace", responses=documented(415))
def set_workspace_budget(body: SetBudget, engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """These limits take the place of all earlier ones; what was spent before counts."""
    return budget_json(
        engine.budgets.set(caller.workspace_id, None, body.limits(), by=caller.key_id)
    )


@router.get(WORKSPACE, summary="The budget of the workspace", responses=documented(404))
def get_workspace_budget(engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """404 where there is none."""
    return budget_json(engine.budgets.get(caller.workspace_id, None))


@router.delete(WORKSPACE, summary="Lift the budget of the workspace", responses=documented(404))
def clear_workspace_budget(engine: EngineOf, caller: OperatorOf) -> Cleared:
    """404 where there is none."""
    engine.budgets.clear(caller.workspace_id, None, by=caller.key_id)
    return {"success": True}


@router.put(AGENT, summary="Set the budget of an agent", responses=documented(404, 415))
def set_agent_budget(
    agent_id: str, body: SetBudget, engine: EngineOf, caller: OperatorOf
) -> BudgetAnswer:
    """Only of a registered agent."""
    return budget_json(
        engine.budgets.set(caller.workspace_id, agent_id, body.limits(), by=caller.key_id)
    )


@router.get(AGENT, summary="The budget of an agent", responses=documented(404))
def get_agent_budget(agent_id: str, engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """404 where there is none."""
    return budget_json(engine.budgets.get(caller.workspace_id, agent_id))


@router.delete(AGENT, summary="Lift the budget of an agent", responses=documented(404))
def clear_agent_budget(agent_id: str, engine: EngineOf, caller: OperatorOf) -> Cleared:
    """404 where there is none."""
    engine.budgets.clear(caller.workspace_id, agent_id, by=caller.key_id)
    return {"success": True}
