"""Verifying evidence for whoever cannot run `tallystick verify`."""

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter

from api.rest.auth import EngineOf, PaymentPartyOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.schemas import VerifyEvidence
from api.rest.verification_answers import VerificationAnswer
from api.rest.views import verification_json
from engine.audit.verify import Report, verify
from engine.evidence.chain_view import GatewayView

router = APIRouter(
    route_class=ExactJsonRoute, tags=["sessions"], responses=documented(401, 422, 503)
)

_VERIFYING = CapacityLimiter(1)
"""It takes the processor from decisions, and asks the chain."""


@router.post(
    "/api/v1/evidence/verify",
    summary="Whether an evidence file holds, by the chain that this server reads",
    responses=documented(415),
)
async def verify_evidence(
    body: VerifyEvidence, engine: EngineOf, _party: PaymentPartyOf
) -> VerificationAnswer:
    """Whoever does not trust this server, or its endpoints, runs `tallystick verify` elsewhere."""
    deployment = engine.deployment

    def verified() -> Report:
        chains = {
            chain: GatewayView(gateway, name=f"this server's endpoint of {chain}")
            for chain, gateway in engine.networks.gateways.items()
        }
        home = chains.pop(deployment.chain)
        return verify(
            body.evidence.encode(),
            home,
            registry=deployment.registry,
            anchors=deployment.anchors,
            networks=chains,
        )

    report = await to_thread.run_sync(verified, limiter=_VERIFYING)
    return verification_json(report, chain=deployment.chain, registry=deployment.registry)
