"""What a facilitator is asked to verify or settle, read in its one spelling."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from x402.mechanisms.evm.constants import ERR_AUTHORIZATION_VALUE_MISMATCH
from x402.schemas import PaymentPayload, PaymentRequirements

from engine.payments.authorization import Authorization, read_authorization
from engine.payments.claims import Key
from engine.payments.served import Served
from engine.policy.identifiers import IdentifierError, normalise_asset


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: what to settle, and the digest of all that was sent."""

    key: Key
    authorization: Authorization
    digest: bytes


class Refused(Exception):
    """The answer is no; `code` is one of x402's or the SDK's where they have one."""

    def __init__(self, code: str, message: str, tx_hash: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.transaction = f"0x{tx_hash.hex()}" if tx_hash else ""


def read_asked(
    payload: PaymentPayload,
    requirements: PaymentRequirements,
    networks: Collection[str],
    served: Served,
) -> Asked:
    """Read a request of scheme `exact`, transferred by EIP-3009.

    Raises:
        Refused: it is another one, spelt otherwise, or not for those who are served.
    """
    network = requirements.network
    if network not in networks or payload.accepted.network != network:
        raise Refused("invalid_network", f"{', '.join(networks)} is served")
    if (payload.accepted.scheme, requirements.scheme) != ("exact", "exact"):
        raise Refused("unsupported_scheme", "only `exact` is served")
    method = requirements.extra.get("assetTransferMethod", "eip3009")
    if method != "eip3009" or "permit2Authorization" in payload.payload:
        raise Refused("invalid_payload", "only transfers by EIP-3009 are served")
    try:
        asset = normalise_asset(f"{network}/erc20:{requirements.asset}")
        authorization = read_authorization(payload.payload.get("authorization"))
    except IdentifierError:
        raise Refused("invalid_payment_requirements", "asset: takes an address") from None
    except ValueError as error:
        raise Refused("invalid_payload", str(error)) from None
    if not isinstance(payload.payload.get("signature"), str):
        raise Refused("invalid_payload", "signature: takes text")
    if requirements.amount != str(authorization.amount) or authorization.amount == 0:
        raise Refused(
            ERR_AUTHORIZATION_VALUE_MISMATCH,
            "the authorization is not of the amount that is required, above zero",
        )
    if served.tokens is not None and asset not in served.tokens:
        raise Refused("asset_not_served", "this facilitator pays no gas for that token")
    if served.payees is not None and authorization.pay_to not in served.payees:
        raise Refused("payee_not_served", "this facilitator pays no gas for that payee")
    token = asset.rpartition(":")[2]
    key = Key(network, token, authorization.payer, authorization.nonce)
    return Asked(key, authorization, _digest(payload, requirements))


def payer_of(payload: PaymentPayload) -> str | None:
    """Whom a refusal names: what was sent, if it is a text at all, as far as an address goes."""
    authorization = payload.payload.get("authorization")
    payer = authorization.get("from") if isinstance(authorization, Mapping) else None
    return payer[:42] if isinstance(payer, str) else None


def _digest(payload: PaymentPayload, requirements: PaymentRequirements) -> bytes:
    """Equal for the same request only, however its JSON was laid out."""
    sent = [part.model_dump(mode="json", by_alias=True) for part in (payload, requirements)]
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).digest()
