"""What fields of request bodies may hold, and what it becomes. Amounts are read exactly."""

import base64
import json
import re
from decimal import Decimal
from typing import Annotated, Any

from eth_utils.address import is_checksum_address
from pydantic import BeforeValidator, Field, WithJsonSchema

from api.rest.exact_json import Number, dumps, loads
from engine.errors import InvalidInput
from engine.policy.conditions import CONDITIONS_MAX, PAYMENTS_MAX
from engine.policy.identifiers import IDENTIFIER_LENGTH_MAX, normalise_chain, normalise_merchant
from engine.policy.money import parse_usd, usd_number
from engine.sessions.lifecycle import DURATION_MAX_MS

METADATA_BYTES_MAX = 16_384
HOUR_MS = 3_600_000

_HOURS_MAX = DURATION_MAX_MS // HOUR_MS
_HOURS = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?")
_PRINTABLE = "^[^\\x00-\\x1f\\x7f\u202a-\u202e\u2066-\u2069]*$"
_ZERO = re.compile(r"0(\.0{1,6})?")
_AMOUNT_PATTERN = r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?$"


def _text_of(value: Any) -> str:
    """A number's text as it was written; a string is taken for one."""
    text = value.text if isinstance(value, Number) else value
    if not isinstance(text, (int, str)):
        raise ValueError("must be a number or a decimal string")  # noqa: TRY004 (pydantic wants it)
    return str(text)


def _amount(value: Any) -> int:
    return parse_usd(_text_of(value))


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    return 0 if _ZERO.fullmatch(_text_of(value)) else _amount(value)


def _duration_ms(value: Any) -> int:
    text = _text_of(value)
    milliseconds = Decimal(text) * HOUR_MS if _HOURS.fullmatch(text) else Decimal("NaN")
    if milliseconds != milliseconds.to_integral_value():
        raise ValueError("must be a plain decimal number of hours, of whole milliseconds")
    if not 0 < milliseconds <= DURATION_MAX_MS:
        raise ValueError(f"must be above 0 and at most {_HOURS_MAX}")
    return int(milliseconds)


def _wallet(value: Any) -> Any:
    if isinstance(value, str) and value[:2] in ("0x", "0X"):
        digits = value[2:]
        if len(digits) != 40 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise ValueError("starts like an EVM address but is none")
        mixed = digits not in (digits.lower(), digits.upper())
        if mixed and not is_checksum_address("0x" + digits):
            raise ValueError("has a wrong checksum (EIP-55)")
    return value


def _object(value: Any) -> str:
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 (pydantic wants it)
    text = dumps(value)
    if len(text.encode()) > METADATA_BYTES_MAX:
        raise ValueError(f"is longer than {METADATA_BYTES_MAX} bytes")
    return text


def _sent_object(value: Any) -> Any:
    """An object, or one in the base64 of a header; as a client of JSON would read it."""
    if isinstance(value, str):
        try:
            value = loads(base64.b64decode(value, validate=True))
        except (InvalidInput, ValueError):
            raise ValueError("is no object, and no base64 of one") from None
    if not isinstance(value, dict):
        raise ValueError("must be an object, or one in base64")  # noqa: TRY004 (pydantic wants it)
    return json.loads(dumps(value))


def printable(length_max: int, *, length_min: int = 1) -> Any:
    """Text without control characters, and without those that have what follows them read the other
    way round (Unicode, UAX #9): what somebody approves is what stands there."""
    return Field(min_length=length_min, max_length=length_max, pattern=_PRINTABLE)


def dollars(default: int | None) -> Any:
    """A field that shows its default in dollars and reads it like any other value."""
    shown = None if default is None else usd_number(default)
    return Field(default=shown, validate_default=True)


def _amount_schema(minimum: dict[str, Any], *more: dict[str, Any]) -> WithJsonSchema:
    number = {"type": "number", **minimum, "maximum": 999_999_999.999999}
    return WithJsonSchema(
        {"anyOf": [number, {"type": "string", "pattern": _AMOUNT_PATTERN}, *more]}
    )


Usd = Annotated[int, BeforeValidator(_amount), _amount_schema({"exclusiveMinimum": 0})]
"""An amount in dollars; the value is micro-USD."""
PartUsd = Annotated[int | None, BeforeValidator(_amount), _amount_schema({"exclusiveMinimum": 0})]
"""The same; left out, and in no other way, all that there is."""
UsdLimit = Annotated[
    int | None, BeforeValidator(_limit), _amount_schema({"minimum": 0}, {"type": "null"})
]
"""A limit in dollars, zero included; None means unlimited; the value is micro-USD."""
PaymentCount = Annotated[int | None, Field(ge=0, le=PAYMENTS_MAX)]
"""A number of payments, zero included; None means unlimited."""
Hours = Annotated[
    int,
    BeforeValidator(_duration_ms),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": _HOURS_MAX},
                {"type": "string", "pattern": f"^{_HOURS.pattern}$"},
            ]
        }
    ),
]
"""A duration in hours; the value is milliseconds."""
JsonObject = Annotated[str, BeforeValidator(_object), WithJsonSchema({"type": "object"})]
"""An object that is kept and given back; the value is its text."""
SentObject = Annotated[
    dict[str, Any],
    BeforeValidator(_sent_object),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object"},
                {"type": "string", "contentEncoding": "base64"},
            ]
        }
    ),
]
"""An object as x402 sends it: as it is, or as the value of a header."""
Merchant = Annotated[
    str,
    BeforeValidator(lambda v: normalise_merchant(v) if type(v) is str else v),
    Field(min_length=1, max_length=IDENTIFIER_LENGTH_MAX),
]
Chain = Annotated[
    str,
    BeforeValidator(lambda v: normalise_chain(v) if type(v) is str else v),
    WithJsonSchema({"type": "string", "pattern": "^[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}$"}),
]
AgentId = Annotated[
    str, printable(128), WithJsonSchema({"type": "string", "pattern": "^[!-~]{1,128}$"})
]
Wallet = Annotated[str, BeforeValidator(_wallet), printable(128)]
Account = Annotated[
    str,
    BeforeValidator(_wallet),
    Field(pattern=r"^0x[0-9a-fA-F]{40}$"),
]
"""An account on a chain; with letters of both cases, in its checksum (EIP-55)."""
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9.]{1,12}$")]
PerhapsEmpty = Annotated[str, printable(200, length_min=0)]
Sentences = Annotated[list[str], Field(max_length=CONDITIONS_MAX)]
"""Conditions; what is wrong with one is for the engine to say."""
Permission = Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
Merchants = Annotated[list[Merchant], Field(min_length=1, max_length=100)]
Tokens = Annotated[list[str], Field(min_length=1, max_length=50)]
"""Symbols, or CAIP-19 ids; which of them exist is for the engine to say."""
Chains = Annotated[list[Chain], Field(min_length=1, max_length=50)]
Permissions = Annotated[list[Permission], Field(min_length=1, max_length=20)]
