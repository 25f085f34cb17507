"""The audit log: where it is anchored, and anchoring it now."""

from fastapi import APIRouter

from api.rest.answers import AnchorAnswer, DeploymentAnswer
from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented

router = APIRouter(tags=["log"])


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


@router.post(
    "/api/v1/log/anchor",
    summary="Sign a checkpoint and anchor it now",
    responses=documented(401, 503),
)
def anchor(engine: EngineOf, _caller: OperatorOf) -> AnchorAnswer:
    """Answers with the newest anchor, which may still be on its way."""
    newest = engine.anchor()
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
