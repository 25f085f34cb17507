"""x402's headers: a payment comes in PAYMENT-SIGNATURE; everything is JSON in base 64.

The SDK writes them. What comes in is read here: with distrust, and once.
"""

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from api.rest.exact_json import loads
from engine.errors import InvalidInput
from engine.selling.refusals import PaymentRefused

if TYPE_CHECKING:
    from x402.schemas import PaymentRequired, SettleResponse

PAYMENT_SIGNATURE = "PAYMENT-SIGNATURE"
PAYMENT_REQUIRED = "PAYMENT-REQUIRED"
PAYMENT_RESPONSE = "PAYMENT-RESPONSE"
FIRST_VERSION = "X-PAYMENT"
LENGTH_MAX = 16_384
"""An honest payment has some 1,200 characters."""


def read_payment(headers: Headers) -> Mapping[str, Any] | None:
    """The payment that came with a request; None if none did.

    Raises:
        PaymentRefused: it cannot be read, or there are several.
    """
    sent = headers.getlist(PAYMENT_SIGNATURE)
    if headers.getlist(FIRST_VERSION):
        raise PaymentRefused(
            f"{FIRST_VERSION} is of x402's first version: send {PAYMENT_SIGNATURE} alone",
            code="invalid_x402_version",
        )
    if not sent:
        return None
    if len(sent) > 1:
        raise PaymentRefused(f"{PAYMENT_SIGNATURE} was sent {len(sent)} times")
    if len(sent[0]) > LENGTH_MAX:
        raise PaymentRefused(f"{PAYMENT_SIGNATURE} is longer than {LENGTH_MAX} characters")
    try:
        decoded = base64.b64decode(sent[0], validate=True)
        loads(decoded)  # refuses duplicate keys, depth, and text that is none
        payment = json.loads(decoded)
    except (ValueError, InvalidInput):
        raise PaymentRefused(f"{PAYMENT_SIGNATURE} is not JSON in base 64") from None
    if not isinstance(payment, dict):
        raise PaymentRefused(f"{PAYMENT_SIGNATURE} is no object")
    return payment


def encoded_required(required: "PaymentRequired") -> str:
    """The value of PAYMENT-REQUIRED."""
    from x402.http.utils import encode_payment_required_header

    return encode_payment_required_header(required)


def encoded_response(settlement: "SettleResponse") -> str:
    """The value of PAYMENT-RESPONSE."""
    from x402.http.utils import encode_payment_response_header

    return encode_payment_response_header(settlement)
