"""x402's headers: a payment comes in PAYMENT-SIGNATURE, a sign-in in SIGN-IN-WITH-X.

Everything is JSON in base 64. The SDK writes it; what comes in is read here, with distrust, once.
"""

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from api.rest.exact_json import loads
from engine.errors import InvalidInput
from engine.selling.refusals import PaymentRefused, SignInRefused

if TYPE_CHECKING:
    from x402.schemas import PaymentRequired, SettleResponse

PAYMENT_SIGNATURE = "PAYMENT-SIGNATURE"
SIGN_IN = "SIGN-IN-WITH-X"
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
    return _read(PAYMENT_SIGNATURE, sent, PaymentRefused)


def read_sign_in(headers: Headers) -> Mapping[str, Any] | None:
    """What somebody signed in with; None if nobody did.

    Raises:
        SignInRefused: it cannot be read, or there are several.
    """
    return _read(SIGN_IN, headers.getlist(SIGN_IN), SignInRefused)


def _read(name: str, sent: list[str], refused: type[PaymentRefused]) -> Mapping[str, Any] | None:
    if not sent:
        return None
    if len(sent) > 1:
        raise refused(f"{name} was sent {len(sent)} times")
    if len(sent[0]) > LENGTH_MAX:
        raise refused(f"{name} is longer than {LENGTH_MAX} characters")
    try:
        decoded = base64.b64decode(sent[0], validate=True)
        loads(decoded)  # refuses duplicate keys, depth, and text that is none
        told = json.loads(decoded)
    except (ValueError, InvalidInput):
        raise refused(f"{name} is not JSON in base 64") from None
    if not isinstance(told, dict):
        raise refused(f"{name} is no object")
    return told


def encoded_required(required: "PaymentRequired") -> str:
    """The value of PAYMENT-REQUIRED."""
    from x402.http.utils import encode_payment_required_header

    return encode_payment_required_header(required)


def encoded_response(settlement: "SettleResponse") -> str:
    """The value of PAYMENT-RESPONSE."""
    from x402.http.utils import encode_payment_response_header

    return encode_payment_response_header(settlement)
