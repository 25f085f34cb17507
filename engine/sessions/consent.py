"""An owner's consent, checked before it is written down and sent to the chain."""

from engine.audit import consent
from engine.chain import contracts
from engine.chain.gateway import ChainGateway
from engine.errors import InvalidInput
from engine.grant import Domain
from engine.sessions.session import SessionView


def check_consent(
    view: SessionView, kind: str, signature: bytes, domain: Domain, gateway: ChainGateway
) -> None:
    """Check a signature of that kind as the registry will, which checks it again.

    Raises:
        InvalidInput: it is not the owner's signature over exactly this grant.
        ChainUnavailable: a wallet that is a contract cannot be asked.
    """
    owner = view.grant.owner
    if kind == "erc1271":
        if not view.mint_pkp:
            # What a wallet accepts can change: without the chain nobody could tell later.
            raise InvalidInput("consent", "erc1271 needs a session with mint_pkp")
        digest = view.grant.digest(domain)
        if not contracts.accepts_signature(gateway, owner, digest, signature):
            raise InvalidInput("owner_signature", f"is not accepted by the contract {owner}")
        return
    try:
        signer = consent.signer(kind, signature, view.grant, domain)
    except ValueError as error:
        raise InvalidInput("owner_signature", str(error)) from error
    if signer != owner:
        raise InvalidInput("owner_signature", f"was made by {signer}, not by the owner {owner}")
