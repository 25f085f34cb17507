"""What a resource server asks for: the offers of an x402 402 answer, read with distrust.

The wire format is x402's version 2 (`PaymentRequired`); the SDK parses it. Here each offer is held
against what we can pay at all. What cannot be paid is told with a reason, in words for the log.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.policy.identifiers import IdentifierError, normalise_asset, normalise_chain

OFFERS_MAX = 32
"""An honest server has a handful; reading a thousand would be work that somebody else chooses."""
TIMEOUT_MAX_S = 3_600
"""So long a signature may be valid at most: until then its budget is taken, used or not."""
TIMEOUT_MIN_S = 10
"""A facilitator refuses what ends within six seconds."""
AMOUNT_MAX = 2**256 - 1
_DECIMAL = re.compile(r"[1-9][0-9]{0,77}")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_NOBODY = "0x" + "00" * 20


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to pay that we know how to use: scheme `exact` by EIP-3009 on an EVM chain.

    `asset` is a CAIP-19 id, `amount` in the token's smallest unit, `pay_to` lower-case. `position`
    is its place in the answer, and `accepted` the offer as it was sent, which has to be echoed.
    """

    position: int
    network: str
    asset: str
    amount: int
    pay_to: str
    timeout_s: int
    accepted: Mapping[str, Any]

    @property
    def token(self) -> str:
        """The token contract's address."""
        return self.asset.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Unusable:
    """An offer that cannot be taken, and why."""

    position: int
    reason: str


def read_offers(accepts: Iterable[Any]) -> tuple[list[Offer], list[Unusable]]:
    """Sort offers into those that could be paid and those that cannot, both in their order.

    Only the first `OFFERS_MAX` are looked at; one `Unusable` tells of all others.
    """
    offers: list[Offer] = []
    unusable: list[Unusable] = []
    for position, offer in enumerate(accepts):
        if position == OFFERS_MAX:
            unusable.append(Unusable(position, f"only the first {OFFERS_MAX} offers are read"))
            break
        try:
            offers.append(_read(position, offer))
        except _Unfit as unfit:
            unusable.append(Unusable(position, str(unfit)))
    return offers, unusable


class _Unfit(Exception):
    """Why an offer cannot be taken."""


def _read(position: int, offer: Any) -> Offer:
    if not isinstance(offer, Mapping):
        raise _Unfit("it is no object")
    if offer.get("scheme") != "exact":
        raise _Unfit(f"scheme {_shown(offer.get('scheme'))} is not exact")
    extra = offer.get("extra")
    if extra is not None and not isinstance(extra, Mapping):
        raise _Unfit("extra is no object")
    method = "eip3009" if extra is None else extra.get("assetTransferMethod", "eip3009")
    if method != "eip3009":
        raise _Unfit(f"asset transfer method {_shown(method)} is not eip3009")
    network = _text(offer, "network")
    try:
        normalise_chain(network)
    except IdentifierError:
        raise _Unfit(f"network {_shown(network)} is no CAIP-2 id") from None
    if not network.startswith("eip155:"):
        raise _Unfit(f"network {_shown(network)} is no EVM chain")
    try:
        asset = normalise_asset(f"{network}/erc20:{_text(offer, 'asset')}")
    except IdentifierError:
        raise _Unfit(f"asset {_shown(offer.get('asset'))} is no token contract") from None
    pay_to = _text(offer, "payTo")
    if not _ADDRESS.fullmatch(pay_to) or pay_to.lower() == _NOBODY:
        raise _Unfit(f"payTo {_shown(pay_to)} is no address")
    amount = _text(offer, "amount")
    if not (amount.isascii() and _DECIMAL.fullmatch(amount)) or int(amount) > AMOUNT_MAX:
        raise _Unfit(f"amount {_shown(amount)} is no number of token units above zero")
    timeout_s = offer.get("maxTimeoutSeconds")
    if type(timeout_s) is not int or not TIMEOUT_MIN_S <= timeout_s <= TIMEOUT_MAX_S:
        raise _Unfit(
            f"maxTimeoutSeconds {_shown(timeout_s)} is not from {TIMEOUT_MIN_S} to {TIMEOUT_MAX_S}"
        )
    return Offer(position, network, asset, int(amount), pay_to.lower(), timeout_s, offer)


def _text(offer: Mapping[str, Any], name: str) -> str:
    value = offer.get(name)
    if not isinstance(value, str):
        raise _Unfit(f"{name} {_shown(value)} is no text")
    return value


def _shown(value: object) -> str:
    """Somebody else's words, short and without anything that writes over a terminal."""
    if isinstance(value, str):
        return ascii(value[:60]) + "…" * (len(value) > 60)
    if value is None or (isinstance(value, int) and value.bit_length() <= 64):
        return str(value)
    # Not the value itself: what holds others can be as deep and as long as its sender likes.
    return f"of type {type(value).__name__}"
