"""Request bodies. Unknown fields and wrong types are refused; amounts are read exactly."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from eth_utils.address import is_checksum_address
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.rest.exact_json import Number
from engine.policy.identifiers import normalise_chain, normalise_merchant
from engine.policy.money import parse_usd

METADATA_BYTES_MAX = 16_384
_NUMBER_OR_TEXT = {"anyOf": [{"type": "number"}, {"type": "string"}]}


def _amount(value: Any) -> int:
    if isinstance(value, Number):
        value = value.text
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("must be a number or a decimal string")  # noqa: TRY004 (pydantic wants it)
    return parse_usd(value)


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    return 0 if type(value) is int and value == 0 else _amount(value)


def _duration_ms(value: Any) -> int:
    text = value.text if isinstance(value, Number) else value
    if isinstance(text, bool) or not isinstance(text, (int, str)) or "e" in str(text).lower():
        raise ValueError("must be a number of hours")
    milliseconds = Decimal(text) * 3_600_000 if str(text).replace(".", "", 1).isdecimal() else None
    if milliseconds is None or milliseconds != int(milliseconds):
        raise ValueError("must be a number of hours")
    if not 0 < milliseconds <= 168 * 3_600_000:
        raise ValueError("must be above 0 and at most 168")
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


def _text(length_max: int) -> Any:
    return Field(min_length=1, max_length=length_max, pattern=r"^[^\x00-\x1f\x7f]*$")


Usd = Annotated[int, BeforeValidator(_amount), WithJsonSchema(_NUMBER_OR_TEXT)]
"""An amount in dollars; the value is micro-USD."""
UsdLimit = Annotated[
    int | None,
    BeforeValidator(_limit),
    WithJsonSchema({"anyOf": [*_NUMBER_OR_TEXT["anyOf"], {"type": "null"}]}),
]
Hours = Annotated[int, BeforeValidator(_duration_ms), WithJsonSchema({"type": "number"})]
"""A duration in hours; the value is milliseconds."""
Merchant = Annotated[str, BeforeValidator(lambda v: normalise_merchant(v) if type(v) is str else v)]
Chain = Annotated[str, BeforeValidator(lambda v: normalise_chain(v) if type(v) is str else v)]
Wallet = Annotated[str, BeforeValidator(_wallet), _text(128)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9.]{1,12}$")]
Metadata = dict[str, Any]


class Body(BaseModel):
    """What all request bodies share."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class LimitsBody(Body):
    """Limits in dollars. Left out: the documented default. Null: unlimited."""

    max_per_transaction: UsdLimit = 1_000_000_000
    max_per_day: UsdLimit = 5_000_000_000
    max_per_week: UsdLimit = 20_000_000_000
    max_per_month: UsdLimit = 50_000_000_000
    require_approval_above: UsdLimit = 500_000_000


class CreateSession(Body):
    """A new session."""

    agent_id: Annotated[str, _text(128)]
    agent_name: Annotated[str, _text(200)] | None = None
    user_wallet: Wallet
    limits: LimitsBody = Field(default_factory=LimitsBody)
    allowed_merchants: Annotated[list[Merchant], Field(min_length=1, max_length=100)] | None = None
    allowed_tokens: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    allowed_chains: Annotated[list[Chain], Field(min_length=1, max_length=50)] | None = None
    permissions: (
        Annotated[
            list[Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]],
            Field(min_length=1, max_length=20),
        ]
        | None
    ) = None
    duration_hours: Hours = 24 * 3_600_000
    mint_pkp: bool = False
    await_consent: bool = Field(
        default=False, description="Wait for the owner's EIP-712 signature before anything is paid"
    )
    type: Literal["agent", "app"] = "agent"
    label: Annotated[str, _text(100)] | None = None
    metadata: Metadata | None = None


class Consent(Body):
    """The owner's signature over the session's grant."""

    owner_signature: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{130}$")]


class SmartPayment(Body):
    """A payment that is spent as soon as it is allowed."""

    amount_usd: Usd
    session_token: Annotated[str, Field(max_length=200)] | None = None
    agent_id: str | None = None
    user_wallet: str | None = None
    merchant_id: Merchant | None = None
    token: Symbol = "USDC"  # noqa: S105 (a currency)
    chain: Chain | None = None
    description: Annotated[str, _text(1000)] | None = None
    metadata: Metadata | None = None
    auto_detect_gasless: bool | None = None
    instant_settlement: bool | None = None
    enable_escrow: Literal[False] | None = None


class CreatePayment(Body):
    """A payment that is held until it is captured, or captured at once."""

    amount: Usd
    currency: Literal["USD"] = "USD"
    token: Symbol = "USDC"  # noqa: S105 (a currency)
    chain: Chain | None = None
    recipient_wallet: Merchant | None = None
    merchant_id: Merchant | None = None
    capture_method: Literal["automatic", "manual"] = "manual"
    description: Annotated[str, _text(1000)] | None = None
    metadata: Metadata | None = None


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
