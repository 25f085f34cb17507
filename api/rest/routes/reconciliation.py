"""Reconciliation: whether ledger and chain say the same, and the discrepancies that are open."""

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query

from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.reconciliation_answers import (
    ReconciliationState,
    chain_json,
    discrepancy_json,
    reading_json,
    reconciliation_json,
)
from engine.engine import Engine
from engine.workspaces.access import Operator

BLOCK_MAX = 2**53 - 1

_RECONCILING = CapacityLimiter(1)
"""One at a time is made; who waits for it takes no thread meanwhile."""

router = APIRouter(
    prefix="/api/v1/reconciliation",
    tags=["reconciliation"],
    responses=documented(401, 422, 503),
)


@router.post("", summary="Compare ledger and chain now")
async def reconcile(
    engine: EngineOf,
    caller: OperatorOf,
    from_block: Annotated[int | None, Query(ge=0, le=BLOCK_MAX)] = None,
) -> ReconciliationState:
    """Answers when it is done. With `from_block` only what the chain holds from that block on is
    compared, and nothing is resolved. 503 if the chain does not answer or contradicts itself: then
    nothing was found."""

    def made() -> ReconciliationState:
        engine.reconciler.run(from_block=from_block)
        return _state(engine, caller)

    return await to_thread.run_sync(made, limiter=_RECONCILING)


@router.get("", summary="List open discrepancies")
def list_discrepancies(engine: EngineOf, caller: OperatorOf) -> ReconciliationState:
    """Those of the workspace and those that are about no workspace; the admin sees all."""
    return _state(engine, caller)


def _state(engine: Engine, caller: Operator) -> ReconciliationState:
    last, running = engine.reconciler.last, engine.reconciler.reading
    return {
        "open": [
            discrepancy_json(found)
            for found in engine.reconciler.open()
            if caller.admin or found.workspace_id in (None, caller.workspace_id)
        ],
        "last": None if last is None else reconciliation_json(last),
        "running": None if running is None else reading_json(running),
        "chain": chain_json(engine.lead.position()),
    }
