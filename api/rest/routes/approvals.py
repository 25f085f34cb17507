"""Approvals: list and show what waits, grant or deny it."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.rest.answers import ApprovalAnswer, ApprovalsPage
from api.rest.auth import EngineOf, OperatorOf, PaymentReaderOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.queries import ApprovalsQuery
from api.rest.schemas import Deny
from api.rest.views import approval_json
from engine.errors import NotFound
from engine.ledger.approval import parse_approval_id

router = APIRouter(
    prefix="/api/v1/approvals",
    route_class=ExactJsonRoute,
    tags=["approvals"],
    responses=documented(401, 404, 422, 503),
)


@router.get("", summary="List approvals, the newest first")
def list_approvals(
    engine: EngineOf, caller: OperatorOf, wanted: Annotated[ApprovalsQuery, Query()]
) -> ApprovalsPage:
    """Of the workspace, or of one session; in every state, or in one."""
    if wanted.session_id is not None:
        engine.sessions.get(caller.workspace_id, wanted.session_id)
    approvals, total = engine.approvals.page(
        caller.workspace_id,
        engine.clock(),
        session_id=wanted.session_id,
        state=wanted.state,
        offset=wanted.offset,
        limit=wanted.limit,
    )
    return {
        "data": [approval_json(approval) for approval in approvals],
        "pagination": wanted.pagination(total),
    }


@router.get("/{approval_id}", summary="One approval")
def get_approval(approval_id: str, engine: EngineOf, party: PaymentReaderOf) -> ApprovalAnswer:
    """Whoever asked for it learns here what became of it, and the id of the payment."""
    session_id, _ = parse_approval_id(approval_id)
    try:
        session_of(engine, party, session_id)
    except NotFound:
        raise NotFound("no such approval", code="approval_not_found") from None
    return approval_json(engine.approvals.get(party.workspace_id, approval_id, engine.clock()))


@router.post("/{approval_id}/grant", summary="Grant an approval", responses=documented(409))
def grant(approval_id: str, engine: EngineOf, caller: OperatorOf) -> ApprovalAnswer:
    """With the last grant that is needed the payment is decided at once: look at `state`. It is
    `refused` if something else than the threshold is against it by now."""
    return approval_json(engine.approvals.grant(caller.workspace_id, approval_id, by=caller.key_id))


@router.post("/{approval_id}/deny", summary="Deny an approval", responses=documented(409, 415))
def deny(
    approval_id: str, engine: EngineOf, caller: OperatorOf, body: Deny | None = None
) -> ApprovalAnswer:
    """One operator is enough. The reason is kept in the log."""
    reason = None if body is None else body.reason
    return approval_json(
        engine.approvals.deny(caller.workspace_id, approval_id, by=caller.key_id, reason=reason)
    )
