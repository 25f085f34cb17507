"""A payment as somebody presents it: read in its one spelling, and its signature checked.

x402's `exact` scheme by EIP-3009, signed by a plain wallet. Whose store a payment opens is decided
by this signature, recovered here, and never by what a client or a facilitator says.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from pydantic import ValidationError
from x402.mechanisms.evm.constants import (
    ERR_AUTHORIZATION_VALUE_MISMATCH,
    ERR_INVALID_SIGNATURE,
    ERR_RECIPIENT_MISMATCH,
)
from x402.schemas import PaymentPayload, PaymentRequirements

from engine.payments.authorization import Authorization, read_authorization
from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.selling.currency import Currency
from engine.selling.refusals import PaymentRefused
from engine.storage.payer import Payer

ERR_OFFER = "invalid_payment_requirements"
ERR_NETWORK = "invalid_network"
END_SPARE_S = 3_600
"""A signature may end so much later than is asked for: chains have clocks of their own. One without
an end could be used after everybody has forgotten it."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What was presented, in this `currency`. `id` names what the token lets happen once: chain,
    token, payer, nonce; `digest` is of everything that was signed, and the signature."""

    currency: Currency
    payload: PaymentPayload
    authorization: Authorization
    payer: Payer
    id: str
    digest: str

    def choose(self, offers: Iterable[PaymentRequirements], now_ms: int) -> PaymentRequirements:
        """Which of the offers that are made now it takes, whatever it says was offered.

        Raises:
            PaymentRefused: it takes none.
        """
        network, token = self.currency.network, self.currency.token
        for offer in offers:
            if (offer.network, offer.asset) == (network, token):
                self._check(offer, now_ms)
                return offer
        raise PaymentRefused(f"it is not paid on {network}", code=ERR_NETWORK)

    def _check(self, wanted: PaymentRequirements, now_ms: int) -> None:
        taken = self.payload.accepted
        if taken.amount != wanted.amount or str(self.authorization.amount) != wanted.amount:
            raise PaymentRefused(
                f"it costs {wanted.amount} units of the token",
                code=ERR_AUTHORIZATION_VALUE_MISMATCH,
            )
        if self.authorization.pay_to != wanted.pay_to or taken.pay_to.lower() != wanted.pay_to:
            raise PaymentRefused(
                f"it is to be paid to {wanted.pay_to}", code=ERR_RECIPIENT_MISMATCH
            )
        end_s_max = now_ms // 1000 + wanted.max_timeout_seconds + END_SPARE_S
        if self.authorization.valid_before_s > end_s_max:
            raise PaymentRefused(
                f"it is signed for longer than {wanted.max_timeout_seconds} seconds", code=ERR_OFFER
            )


def read_presented(payment: Mapping[str, Any], currencies: Sequence[Currency]) -> Presented:
    """Read a `PaymentPayload` of x402's second version.

    Raises:
        PaymentRefused: it is none, or in none of the currencies, or its payer did not sign it.
    """
    payload = _payload(payment)
    taken = payload.accepted
    if taken.scheme != "exact":
        raise PaymentRefused("only the scheme `exact` is taken", code="unsupported_scheme")
    networks = {each.network for each in currencies}
    if taken.network not in networks:
        raise PaymentRefused(f"it is paid on {' or '.join(sorted(networks))}", code=ERR_NETWORK)
    try:
        asset = normalise_asset(f"{taken.network}/erc20:{taken.asset}")
        authorization = read_authorization(payload.payload.get("authorization"))
    except IdentifierError:
        raise PaymentRefused("accepted.asset: takes an address", code=ERR_OFFER) from None
    except ValueError as error:
        raise PaymentRefused(str(error)) from None
    assets = {each.asset: each for each in currencies}
    if (currency := assets.get(asset)) is None:
        there = " or ".join(each for each in assets if each.startswith(f"{taken.network}/"))
        raise PaymentRefused(f"it is paid in {there}", code=ERR_OFFER)
    signature = payload.payload.get("signature")
    if not isinstance(signature, str) or _signer(authorization, signature, currency) is None:
        raise PaymentRefused(
            "signature: takes the 65 bytes of a plain wallet, which must be the payer",
            code=ERR_INVALID_SIGNATURE,
        )
    nonce = authorization.wire["nonce"]
    return Presented(
        currency=currency,
        payload=payload,
        authorization=authorization,
        payer=Payer(to_checksum_address(authorization.payer), currency.network),
        id=f"{currency.asset}/{authorization.payer}/{nonce}",
        digest=_digest(authorization.wire, signature.lower()),
    )


def requirements(currency: Currency, price: int, pay_to: str | None = None) -> PaymentRequirements:
    """The offer that is made for a price in micro-USD; `pay_to` in place of the currency's."""
    return PaymentRequirements(
        scheme="exact",
        network=currency.network,
        asset=currency.token,
        amount=str(currency.units(price)),
        pay_to=pay_to or currency.pay_to,
        max_timeout_seconds=currency.timeout_s,
        extra={"name": currency.name, "version": currency.version},
    )


def _payload(payment: Mapping[str, Any]) -> PaymentPayload:
    version = payment.get("x402Version")
    if type(version) is not int or version != 2:
        raise PaymentRefused("only x402's second version is taken", code="invalid_x402_version")
    try:
        return PaymentPayload.model_validate(payment)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PaymentRefused(f"{where}: {first['msg']}") from None


def _signer(authorization: Authorization, signature: str, currency: Currency) -> str | None:
    """The payer, if that is who signed."""
    if len(signature) != 132 or not signature.startswith("0x"):
        return None
    data = encode_typed_data(full_message=authorization.typed_data(currency.domain))
    try:
        found = str(Account.recover_message(data, signature=bytes.fromhex(signature[2:]))).lower()
    except Exception:  # noqa: BLE001 (whatever the library dislikes is no signature)
        return None
    return found if found == authorization.payer else None


def _digest(wire: Mapping[str, str], signature: str) -> str:
    signed = json.dumps([dict(wire), signature], sort_keys=True)
    return hashlib.sha256(signed.encode()).hexdigest()
