"""What an operator has to decide about the chain."""

from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter

from api.rest.answers import ResumedChain
from api.rest.auth import AdminOf, EngineOf
from api.rest.errors import documented

router = APIRouter(tags=["chain"])

_RESUMING = CapacityLimiter(1)
"""The chain is asked; see `routes.x402.PAYING`."""


@router.post(
    "/api/v1/chain/resume",
    summary="Read all of the chain again after a deep reorganisation",
    responses=documented(401, 409, 503),
)
async def resume(engine: EngineOf, caller: AdminOf) -> ResumedChain:
    """Answers with the newest block that was given up; sessions follow what the chain is now."""
    resumed = partial(engine.resume_chain, by=caller.key_id)
    number, block_hash = await to_thread.run_sync(resumed, limiter=_RESUMING)
    return {"block_number": number, "block_hash": "0x" + block_hash.hex()}
