"""The audit log: where it is anchored, and anchoring it now."""

from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response

from api.rest.answers import AnchorAnswer, ConsistencyAnswer, DeploymentAnswer
from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented

router = APIRouter(tags=["log"], responses=documented(503))

_ANCHORING = CapacityLimiter(4)
"""Threads that may wait for the chain; see `routes.x402.PAYING`."""

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/api/v1/deployment", summary="The chain, the contracts and the log")
def deployment(engine: EngineOf) -> DeploymentAnswer:
    """Public: everything here is on the chain or is what an auditor must know."""
    found = engine.deployment
    return {
        "chain": found.chain,
        "registry": found.registry,
        "anchors": found.anchors,
        "log": {
            "id": "0x" + found.log_id.hex(),
            "origin": found.origin,
            "verifier_key": found.log_verifier_key,
        },
    }


@router.get(
    "/api/v1/log/checkpoint",
    summary="The newest checkpoint",
    response_class=Response,
    responses={**_TEXT, **documented(404)},
)
def checkpoint(engine: EngineOf) -> Response:
    """The signed tree head (C2SP tlog-checkpoint), to keep and to compare with what others see."""
    return PlainTextResponse(engine.published_log.checkpoint())


@router.get(
    "/api/v1/log/consistency",
    summary="That the log only grew between two sizes",
    responses=documented(422),
)
def consistency(
    engine: EngineOf,
    old_size: Annotated[int, Query(description="of the smaller tree, in records")],
    new_size: Annotated[int, Query(description="of the larger tree; the checkpoint's at most")],
) -> ConsistencyAnswer:
    """The consistency proof (RFC 6962 section 2.1.2) between two sizes."""
    proof = engine.published_log.consistency(old_size, new_size)
    return {"proof": ["0x" + node.hex() for node in proof]}


@router.post(
    "/api/v1/log/anchor",
    summary="Sign a checkpoint and anchor it now",
    responses=documented(401, 503),
)
async def anchor(engine: EngineOf, _caller: OperatorOf) -> AnchorAnswer:
    """Answers with the newest anchor, which may still be on its way."""
    newest = await to_thread.run_sync(engine.anchor, limiter=_ANCHORING)
    if newest is None:
        return {"anchor": None}
    return {
        "anchor": {
            "size": newest.size,
            "root": "0x" + newest.root.hex(),
            "state": newest.state,
            "tx_hash": "0x" + newest.tx_hash.hex(),
            "block_number": newest.block_number,
        }
    }
