"""Verifying an evidence file by the chain and the registry that this server uses."""

from anyio import CapacityLimiter

from api.rest.verification_answers import VerificationAnswer
from api.rest.views import verification_json
from engine.engine import Engine
from engine.evidence.chain_view import GatewayView

VERIFYING = CapacityLimiter(1)
"""It takes the processor from decisions, and asks the chain: one file at a time."""


def verified_here(engine: Engine, file: bytes) -> VerificationAnswer:
    """What `engine.audit.verify` finds; within `VERIFYING`."""
    from engine.audit.verify import verify  # most servers are never asked

    deployment = engine.deployment
    chains = {
        chain: GatewayView(gateway, name=f"this server's endpoint of {chain}")
        for chain, gateway in engine.networks.gateways.items()
    }
    home = chains.pop(deployment.chain)
    report = verify(
        file,
        home,
        registry=deployment.registry,
        anchors=deployment.anchors,
        networks=chains,
    )
    return verification_json(report, chain=deployment.chain, registry=deployment.registry)
