"""Terms: what of an offer, and of the request that it pays for, a payment is decided and signed on.

They are part of what the ledger records, in the form of `Terms.to_json`. Nothing that a resource
server says beside them is signed or remembered.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from engine.payments.offers import AMOUNT_MAX, Offer
from engine.policy.identifiers import (
    IdentifierError,
    normalise_asset,
    normalise_host,
    normalise_merchant,
)

SCHEME = "exact"
TRANSFER = "TRANSFER"
"""In the place of a request's method, where tokens are sent and nothing is asked for."""
RESOURCE_LENGTH_MAX = 2_048

_METHOD = re.compile(r"[A-Z]{1,16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_AMOUNT = re.compile(r"[1-9][0-9]{0,77}")
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Terms:
    """See the module. `network` is a CAIP-2 id and `asset` a CAIP-19 id; `amount` is in the token's
    smallest unit, in decimal digits; `pay_to` is an address in lower case.

    `resource` is the URL as it was asked for, without its fragment; `method` and `body_sha256` (64
    hexadecimal digits) are of that request. A transfer has none, and the method `TRANSFER`.
    """

    scheme: str
    network: str
    asset: str
    amount: str
    pay_to: str
    resource: str | None
    method: str
    body_sha256: str | None
    timeout_s: int

    @classmethod
    def of_offer(
        cls, offer: Offer, resource: str | None, method: str, body_sha256: str | None
    ) -> "Terms":
        """What is agreed to by taking an offer."""
        return cls(
            scheme=SCHEME,
            network=offer.network,
            asset=offer.asset,
            amount=str(offer.amount),
            pay_to=offer.pay_to,
            resource=resource,
            method=method,
            body_sha256=body_sha256,
            timeout_s=offer.timeout_s,
        )

    @classmethod
    def read(cls, told: object) -> "Terms":
        """Read what `to_json` wrote.

        Raises:
            ValueError: naming the field that is missing, one too many, or no such thing.
        """
        names = [each.name for each in fields(cls)]
        if not isinstance(told, Mapping):
            raise ValueError("terms: takes an object")  # noqa: TRY004 (it is what was read)
        for name in sorted(told.keys() ^ set(names)):
            raise ValueError(f"terms.{name}: is {'missing' if name in names else 'not known'}")
        for name, good in _GOOD.items():
            if not good(told[name]):
                raise ValueError(f"terms.{name}: is none")
        terms = cls(**told)
        if not terms.asset.startswith(terms.network + "/"):
            raise ValueError("terms.asset: is on another network")
        return terms

    def to_json(self) -> dict[str, Any]:
        """As the log has it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def read_resource(url: str) -> tuple[str, str]:
    """The URL of a request without its fragment, and the merchant: its host, in its one spelling.

    The port is part of the merchant's name unless it is the scheme's own.

    Raises:
        ValueError: it is no absolute URL of http or https (RFC 3986), or it has a user in it.
    """
    resource = url.partition("#")[0]
    if len(resource) > RESOURCE_LENGTH_MAX or not _URL.fullmatch(resource) or "\\" in resource:
        raise ValueError("takes an absolute URL that begins with http:// or https://")
    try:
        parts = urlsplit(resource)
        port = parts.port
        host = _host(parts.netloc, parts.hostname or "")
    except ValueError as error:
        raise ValueError(f"takes a URL with a host: {error}") from None
    if port == 0:
        raise ValueError("takes a URL with a port above 0")
    own = port is None or port == _PORTS[parts.scheme]
    return resource, normalise_merchant(host if own else f"{host}:{port}")


def _host(authority: str, host: str) -> str:
    if "@" in authority:
        raise ValueError("it names a user")
    return normalise_host(f"[{host}]" if "[" in authority else host)


def is_method(method: object) -> bool:
    """Whether it is the method of a request, in capital letters."""
    return isinstance(method, str) and bool(_METHOD.fullmatch(method)) and method != TRANSFER


def is_sha256(value: object) -> bool:
    """Whether it is 32 bytes in lower-case hexadecimal."""
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _is_asset(value: object) -> bool:
    try:
        return isinstance(value, str) and normalise_asset(value) == value
    except IdentifierError:
        return False


def _is_amount(value: object) -> bool:
    return isinstance(value, str) and bool(_AMOUNT.fullmatch(value)) and int(value) <= AMOUNT_MAX


_GOOD: Mapping[str, Callable[[Any], bool]] = {
    "scheme": lambda value: value == SCHEME,
    "network": lambda value: isinstance(value, str),
    "asset": _is_asset,
    "amount": _is_amount,
    "pay_to": lambda value: isinstance(value, str) and bool(_ADDRESS.fullmatch(value)),
    "resource": lambda value: value is None or isinstance(value, str),
    "method": lambda value: value == TRANSFER or is_method(value),
    "body_sha256": lambda value: value is None or is_sha256(value),
    "timeout_s": lambda value: type(value) is int and value > 0,
}
