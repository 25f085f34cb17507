"""What was done, by whom and when, as the records tell it."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.exports import DOCUMENTED, export
from api.rest.key_answers import ActAnswer, ActsPage, act_json
from api.rest.queries import ActsExport, ActsQuery

router = APIRouter(tags=["log"], responses=documented(401, 422, 503))


@router.get(
    "/api/v1/audit/export",
    summary="All acts as a file",
    response_model=None,
    responses=DOCUMENTED,
)
def export_acts(
    engine: EngineOf, caller: OperatorOf, wanted: Annotated[ActsExport, Query()]
) -> StreamingResponse:
    """The acts of the list with the same filters, the oldest first, as JSON, NDJSON or CSV."""
    acts = engine.acts.all(
        caller.workspace_id,
        actor=wanted.actor,
        kinds=wanted.action,
        from_ms=wanted.start_date,
        until_ms=wanted.end_date,
    )
    return export("audit", wanted.format, ActAnswer.__annotations__, map(act_json, acts))


@router.get("/api/v1/audit", summary="List acts, the newest first")
def list_acts(
    engine: EngineOf, caller: OperatorOf, wanted: Annotated[ActsQuery, Query()]
) -> ActsPage:
    """Every record of the workspace and its sessions that is of no payment. `action` can be
    named more than once; of times the first is included and the last is not."""
    acts, total = engine.acts.page(
        caller.workspace_id,
        actor=wanted.actor,
        kinds=wanted.action,
        from_ms=wanted.start_date,
        until_ms=wanted.end_date,
        offset=wanted.offset,
        limit=wanted.limit,
    )
    return {"data": [act_json(act) for act in acts], "pagination": wanted.pagination(total)}
