"""Budgets above the session; only operators see them, and no session changes them."""

from contextlib import suppress

from fastapi import APIRouter

from api.rest.answers import Cleared
from api.rest.auth import EngineOf, OperatorOf
from api.rest.budget_answers import BudgetAnswer
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import SetBudget
from api.rest.views import budget_json
from engine.engine import Engine
from engine.errors import Unavailable
from engine.ledger.budgets import Gauges
from engine.workspaces.budgets import BudgetView

WORKSPACE = "/api/v1/budgets/workspace"
AGENT = "/api/v1/agents/{agent_id:path}/budget"  # an agent's id may have slashes

router = APIRouter(
    route_class=ExactJsonRoute, tags=["budgets"], responses=documented(401, 422, 503)
)


@router.get("/api/v1/budgets", summary="List budgets")
def list_budgets(engine: EngineOf, caller: OperatorOf) -> list[BudgetAnswer]:
    """The workspace's own, and those of its agents."""
    return _told(engine, caller.workspace_id, *engine.budgets.list(caller.workspace_id))


@router.put(WORKSPACE, summary="Set the budget of the workspace", responses=documented(415))
def set_workspace_budget(body: SetBudget, engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """These limits take the place of all earlier ones; what was spent before counts."""
    view = engine.budgets.set(caller.workspace_id, None, body.limits(), by=caller.key_id)
    return _told(engine, caller.workspace_id, view)[0]


@router.get(WORKSPACE, summary="The budget of the workspace", responses=documented(404))
def get_workspace_budget(engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """404 where there is none."""
    return _told(engine, caller.workspace_id, engine.budgets.get(caller.workspace_id, None))[0]


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
    view = engine.budgets.set(caller.workspace_id, agent_id, body.limits(), by=caller.key_id)
    return _told(engine, caller.workspace_id, view)[0]


@router.get(AGENT, summary="The budget of an agent", responses=documented(404))
def get_agent_budget(agent_id: str, engine: EngineOf, caller: OperatorOf) -> BudgetAnswer:
    """404 where there is none."""
    return _told(engine, caller.workspace_id, engine.budgets.get(caller.workspace_id, agent_id))[0]


@router.delete(AGENT, summary="Lift the budget of an agent", responses=documented(404))
def clear_agent_budget(agent_id: str, engine: EngineOf, caller: OperatorOf) -> Cleared:
    """404 where there is none."""
    engine.budgets.clear(caller.workspace_id, agent_id, by=caller.key_id)
    return {"success": True}


def _told(engine: Engine, workspace_id: str, *views: BudgetView) -> list[BudgetAnswer]:
    if not views:
        return []
    used: Gauges = {}
    with suppress(Unavailable):  # what limits there are is told all the same
        used = engine.ledger.budgets_used(workspace_id, *(view.id for view in views)).result()
    return [budget_json(view, used.get(view.id, [])) for view in views]
