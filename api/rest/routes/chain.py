"""What an operator has to decide about the chain."""

from fastapi import APIRouter

from api.rest.answers import ResumedChain
from api.rest.auth import AdminOf, EngineOf
from api.rest.errors import documented

router = APIRouter(tags=["chain"])


@router.post(
    "/api/v1/chain/resume",
    summary="Read all of the chain again after a deep reorganisation",
    responses=documented(401, 409, 503),
)
def resume(engine: EngineOf, caller: AdminOf) -> ResumedChain:
    """Answers with the newest block that was given up; sessions follow what the chain is now."""
    number, block_hash = engine.resume_chain(by=caller.key_id)
    return {"block_number": number, "block_hash": "0x" + block_hash.hex()}
