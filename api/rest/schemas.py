"""Request bodies. Unknown fields and wrong types are refused; amounts are read exactly."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from eth_utils.address import is_checksum_address
from fastapi import HTTPException
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from api.rest.exact_json import Number, Unreadable, dumps
from engine.policy.identifiers import IDENTIFIER_LENGTH_MAX, normalise_chain, normalise_merchant
from engine.policy.limits import DEFAULT_LIMITS
from engine.policy.money import parse_usd, usd_number
from engine.sessions.lifecycle import DURATION_MAX_MS

METADATA_BYTES_MAX = 16_384
HOUR_MS = 3_600_000

_HOURS_MAX = DURATION_MAX_MS // HOUR_MS
_HOURS = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?")
_ZERO = re.compile(r"0(\.0{1,6})?")
_AMOUNT_PATTERN = r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?$"


def _text_of(value: Any, kind: str) -> str:
    """A number's text as it was written; a string is taken for one."""
    text = value.text if isinstance(value, Number) else value
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        raise ValueError(f"must be {kind} or a decimal string")  # noqa: TRY004 (pydantic wants it)
    return str(text)


def _amount(value: Any) -> int:
    return parse_usd(_text_of(value, "a number"))


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    return 0 if _ZERO.fullmatch(_text_of(value, "a number")) else _amount(value)


def _duration_ms(value: Any) -> int:
    text = _text_of(value, "a number of hours")
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


def _text(length_max: int, *, length_min: int = 1) -> Any:
    return Field(min_length=length_min, max_length=length_max, pattern=r"^[^\x00-\x1f\x7f]*$")


def _dollars(default: int | None) -> Any:
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
UsdLimit = Annotated[
    int | None, BeforeValidator(_limit), _amount_schema({"minimum": 0}, {"type": "null"})
]
"""A limit in dollars, zero included; None means unlimited; the value is micro-USD."""
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
Merchant = Annotated[
    str,
    BeforeValidator(lambda v: normalise_merchant(v) if type(v) is str else v),
    Field(min_length=1, max_length=IDENTIFIER_LENGTH_MAX),
]
Chain = Annotated[str, BeforeValidator(lambda v: normalise_chain(v) if type(v) is str else v)]
Wallet = Annotated[str, BeforeValidator(_wallet), _text(128)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9.]{1,12}$")]
PerhapsEmpty = Annotated[str, _text(200, length_min=0)]
Permission = Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]


class Body(BaseModel):
    """What all request bodies share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, Unreadable):
            raise value.reason
        if isinstance(value, bytes):
            raise HTTPException(415, "the body must be sent as application/json")
        return value


class LimitsBody(Body):
    """Limits in dollars. Left out: the documented default. Null: unlimited."""

    max_per_transaction: UsdLimit = _dollars(DEFAULT_LIMITS.per_transaction)
    max_per_day: UsdLimit = _dollars(DEFAULT_LIMITS.per_day)
    max_per_week: UsdLimit = _dollars(DEFAULT_LIMITS.per_week)
    max_per_month: UsdLimit = _dollars(DEFAULT_LIMITS.per_month)
    require_approval_above: UsdLimit = _dollars(DEFAULT_LIMITS.approval_above)


class CreateSession(Body):
    """A new session."""

    agent_id: Annotated[str, _text(128)]
    agent_name: Annotated[str, _text(200)] | None = None
    user_wallet: Wallet
    limits: LimitsBody = Field(default_factory=LimitsBody)
    allowed_merchants: Annotated[list[Merchant], Field(min_length=1, max_length=100)] | None = None
    allowed_tokens: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    allowed_chains: Annotated[list[Chain], Field(min_length=1, max_length=50)] | None = None
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=20)] | None = None
    duration_hours: Hours = Field(default=24, validate_default=True)
    mint_pkp: bool = False
    await_consent: bool = Field(
        default=False, description="Wait for the owner's EIP-712 signature before anything is paid"
    )
    type: Literal["agent", "app"] = "agent"
    label: Annotated[str, _text(100)] | None = None
    metadata: JsonObject | None = None


class Consent(Body):
    """The owner's signature over the session's grant."""

    owner_signature: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{130}$")]


class PaymentBody(Body):
    """What both ways to ask for a payment share."""

    amount: Usd
    token: Symbol | None = Field(default=None, description="USDC unless named")
    chain: Chain | None = Field(default=None, description="The server's chain unless named")
    merchant_id: Merchant | None = None
    description: Annotated[str, _text(1000, length_min=0)] | None = None
    metadata: JsonObject | None = None

    @classmethod
    def caller_name(cls, field: str) -> str:
        """What a caller calls a field of ours."""
        known = cls.model_fields.get(field)
        return (known and known.alias) or field


class SmartPayment(PaymentBody):
    """A payment that is spent as soon as it is allowed."""

    amount: Usd = Field(alias="amount_usd")
    session_token: PerhapsEmpty | None = None
    agent_id: PerhapsEmpty | None = Field(default=None, description="Ignored: the session's counts")
    user_wallet: PerhapsEmpty | None = Field(
        default=None, description="Ignored: the session's counts"
    )
    product_details: JsonObject | None = None
    auto_detect_gasless: bool | None = None
    instant_settlement: bool | None = None
    enable_escrow: Literal[False] | None = None


class CreatePayment(PaymentBody):
    """A payment that is held until it is captured, or captured at once."""

    currency: Literal["USD"] = "USD"
    recipient_wallet: Merchant | None = None
    capture_method: Literal["automatic", "manual"] = "manual"


class Capture(Body):
    """How much of a hold to spend; all of it by default."""

    amount: Usd | None = None


class RegisterAgent(Body):
    """A registry entry."""

    agent_id: Annotated[str, _text(128)]
    name: Annotated[str, _text(200)] | None = None


class CreateWorkspace(Body):
    """A tenant."""

    id: Annotated[str, _text(64)]
    name: Annotated[str, _text(200)]


class Page(BaseModel):
    """Which part of a list. Filters that do not exist are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20
