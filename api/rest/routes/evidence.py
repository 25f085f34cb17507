"""Verifying evidence for whoever cannot run `tallystick verify`."""

from anyio import to_thread
from fastapi import APIRouter

from api.rest.auth import EngineOf, PaymentPartyOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import VerifyEvidence
from api.rest.verification_answers import VerificationAnswer
from api.rest.verifying import VERIFYING, verified_here

router = APIRouter(
    route_class=ExactJsonRoute, tags=["sessions"], responses=documented(401, 422, 503)
)


@router.post(
    "/api/v1/evidence/verify",
    summary="Whether an evidence file holds, by the chain that this server reads",
    responses=documented(415),
)
async def verify_evidence(
    body: VerifyEvidence, engine: EngineOf, _party: PaymentPartyOf
) -> VerificationAnswer:
    """Whoever does not trust this server, or its endpoints, runs `tallystick verify` elsewhere."""
    file = body.evidence.encode()
    return await to_thread.run_sync(verified_here, engine, file, limiter=VERIFYING)
