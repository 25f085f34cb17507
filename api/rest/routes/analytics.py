"""What agents spent."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.rest.analytics_answers import AnalyticsAnswer, analytics_json
from api.rest.auth import EngineOf, OperatorOrAgentOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.queries import AnalyticsQuery
from engine.errors import NotFound
from engine.policy.limits import DAY_MS
from engine.workspaces.agent_access import AgentCaller

router = APIRouter(
    route_class=ExactJsonRoute, tags=["analytics"], responses=documented(401, 404, 422, 503)
)


@router.get("/api/v1/analytics/agents", summary="What was spent, by day and token")
def analytics(
    engine: EngineOf, caller: OperatorOrAgentOf, wanted: Annotated[AnalyticsQuery, Query()]
) -> AnalyticsAnswer:
    """Of the last `days` in UTC, today included: an operator sees the workspace's, an agent its
    sessions'."""
    agent_id = wanted.agent_id
    if isinstance(caller, AgentCaller):
        if agent_id not in (None, caller.agent_id):
            raise NotFound("no such agent", code="agent_not_found")
        agent_id = caller.agent_id
    today = engine.clock() // DAY_MS
    return analytics_json(
        engine.analytics.sums(caller.workspace_id, wanted.days, agent_id),
        engine.analytics.active(caller.workspace_id, agent_id),
        range(today - wanted.days + 1, today + 1),
        {token.asset: token.symbol for token in engine.deployment.tokens},
    )
