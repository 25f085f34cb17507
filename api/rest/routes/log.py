"""The audit log: where it is anchored, and anchoring it now."""

from typing import Any

from fastapi import APIRouter

from api.rest.auth import EngineOf, OperatorOf
from engine.evidence.anchorer import AnchorView

router = APIRouter(tags=["log"])


@router.get("/api/v1/deployment", summary="The chain, the contracts and the log")
def deployment(engine: EngineOf) -> dict[str, Any]:
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


@router.post("/api/v1/log/anchor", summary="Sign a checkpoint and anchor it now")
def anchor(engine: EngineOf, _caller: OperatorOf) -> dict[str, Any]:
    """Answers with the newest anchor, which may still be on its way."""
    return {"anchor": _anchor_json(engine.anchor())}


def _anchor_json(anchor: AnchorView | None) -> dict[str, Any] | None:
    if anchor is None:
        return None
    return {
        "size": anchor.size,
        "root": "0x" + anchor.root.hex(),
        "state": anchor.state,
        "tx_hash": "0x" + anchor.tx_hash.hex(),
        "block_number": anchor.block_number,
    }
