"""Request bodies. Unknown fields and wrong types are refused."""

import re
from typing import Annotated, Any, Literal, Self

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from api.rest.exact_json import Unreadable
from api.rest.fields import (
    Account,
    AgentId,
    Chain,
    Chains,
    Hours,
    JsonObject,
    Merchant,
    Merchants,
    PartUsd,
    PaymentCount,
    PerhapsEmpty,
    Permissions,
    Sentences,
    SentObject,
    Symbol,
    Tokens,
    Usd,
    UsdLimit,
    Wallet,
    dollars,
    printable,
)
from engine.audit.approvals import REQUIRED_MAX
from engine.audit.consent import SIGNATURE_BYTES_MAX
from engine.payments.terms import RESOURCE_LENGTH_MAX
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import DEFAULT_LIMITS
from engine.workspaces.agent_keys import (
    DEFAULT_RATE_LIMIT_PER_HOUR,
    DEFAULT_SCOPES,
    LIFE_MAX_S,
    NETWORKS_MAX,
    RATE_LIMIT_PER_HOUR_MAX,
    SCOPES,
    Scope,
)

_TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}")

Approvers = Annotated[int, Field(ge=1, le=REQUIRED_MAX)]


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
        # FastAPI would read the attributes of any other object as fields, a `Number`'s as well.
        if not isinstance(value, dict):
            raise ValueError("must be an object")  # noqa: TRY004 (pydantic wants it)
        return value


class LimitsBody(Body):
    """Limits in dollars. Left out: the documented default. Null: unlimited."""

    max_per_transaction: UsdLimit = dollars(DEFAULT_LIMITS.per_transaction)
    max_per_day: UsdLimit = dollars(DEFAULT_LIMITS.per_day)
    max_per_week: UsdLimit = dollars(DEFAULT_LIMITS.per_week)
    max_per_month: UsdLimit = dollars(DEFAULT_LIMITS.per_month)
    require_approval_above: UsdLimit = dollars(DEFAULT_LIMITS.approval_above)


class SessionBody(Body):
    """What every new session may have."""

    agent_id: AgentId
    agent_name: Annotated[str, printable(200)] | None = None
    limits: LimitsBody = Field(default_factory=LimitsBody)
    allowed_merchants: Merchants | None = None
    allowed_tokens: Tokens | None = None
    allowed_chains: Chains | None = None
    permissions: Permissions | None = None
    conditions: Sentences = Field(
        default_factory=list,
        description="What else bounds it, such as `at most 10 payments per hour`; in any order",
    )
    duration_hours: Hours = Field(default=24, validate_default=True)
    await_consent: bool = Field(
        default=False, description="Wait for the owner's signature before anything is paid"
    )
    type: Literal["agent", "app"] = "agent"
    label: Annotated[str, printable(100)] | None = None
    metadata: JsonObject | None = None


class CreateSession(SessionBody):
    """A new session."""

    user_wallet: Wallet
    approvals_required: Approvers = Field(
        default=1, description="So many operators must grant an approval"
    )
    mint_pkp: bool = False


class CreateChild(SessionBody):
    """A session beneath another one, which it may not exceed in anything."""

    user_wallet: Wallet | None = Field(default=None, description="The parent's, and no other")
    mint_pkp: bool | None = Field(
        default=None, description="As the parent; children of a session on the chain are there too"
    )
    approvals_required: Approvers | None = Field(
        default=None, description="As many as for the parent unless more are said"
    )
    duration_hours: Hours | None = Field(  # type: ignore[assignment]
        default=None, description="24, or until the parent ends if that is sooner"
    )


class Restrict(Body):
    """Conditions that narrow a session's grant, in place of those that did so before."""

    restrictions: Sentences


class Consent(Body):
    """The owner's signature over the session's grant."""

    consent: Literal["eip712", "erc1271", "passkey"] = Field(
        default="eip712", description="What `owner_signature` is"
    )
    owner_signature: Annotated[
        str,
        Field(
            pattern=r"^0x([0-9a-fA-F]{2})+$",
            max_length=2 + 2 * SIGNATURE_BYTES_MAX,
            description="`eip712`: r ‖ s ‖ v. `erc1271`: whatever the owner's contract takes. "
            "`passkey`: x ‖ y ‖ abi.encode(r, s, challengeIndex, typeIndex, authenticatorData, "
            "clientDataJSON)",
        ),
    ]


class PaymentBody(Body):
    """What both ways to ask for a payment share."""

    amount: Usd
    token: Symbol | None = Field(default=None, description="USDC unless named")
    chain: Chain | None = Field(default=None, description="The server's chain unless named")
    merchant_id: Merchant | None = None
    description: Annotated[str, printable(1000, length_min=0)] | None = None
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
    customer_email: Annotated[str, printable(320)] | None = Field(
        default=None, description="Kept and shown; nothing is sent there"
    )
    redirect_url: Annotated[str, printable(2000)] | None = Field(
        default=None, description="Kept and shown; nobody is redirected"
    )
    capture_method: Literal["automatic", "manual"] = "manual"


class PayForResource(Body):
    """What a 402 answer asks for, and the request that it answered."""

    payment_required: SentObject = Field(
        description="x402's PaymentRequired (version 2), or the value of its header"
    )
    resource: Annotated[str, printable(RESOURCE_LENGTH_MAX)] = Field(
        description="The URL as it was asked for"
    )
    method: Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")] = "GET"
    body_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="The hash of that request's body, if it has one"
    )
    max_amount: Usd | None = None
    metadata: JsonObject | None = None


class Execute(Body):
    """A transfer of tokens from the session, to be sent by the server."""

    to: Account
    amount: Usd
    token: Symbol | None = Field(default=None, description="USDC unless named")
    chain: Chain | None = Field(default=None, description="The server's chain, and no other")
    memo: Annotated[str, printable(1000, length_min=0)] | None = None


class ReportSettlement(Body):
    """What a resource server answered: x402's SettlementResponse, or that nobody knows."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    payment_response: SentObject | None = Field(
        default=None, description="x402's SettlementResponse, or the value of its header"
    )
    unknown: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.payment_response is None) == (self.unknown is None):
            raise ValueError("takes payment_response or unknown")
        return self

    @property
    def tx_hash(self) -> bytes | None:
        """The transaction that it names, if it does."""
        named = (self.payment_response or {}).get("transaction")
        if not isinstance(named, str) or not _TX_HASH.fullmatch(named):
            return None
        return bytes.fromhex(named[2:])

    @property
    def success(self) -> bool:
        """Whether it says that the payment is settled."""
        return (self.payment_response or {}).get("success") is True


class AcceptSettlement(Body):
    """Why what the chain shows against a payment is accepted; it goes into the log."""

    reason: Annotated[str, printable(500)]


class Capture(Body):
    """How much of a hold to spend; all of it if no amount is named."""

    amount: PartUsd = None


class Deny(Body):
    """Why an approval is denied."""

    reason: Annotated[str, printable(500)] | None = None


class VerifyEvidence(Body):
    """An evidence file."""

    evidence: str = Field(description="The content of the file, unchanged")


class RegisterAgent(Body):
    """A registry entry."""

    agent_id: AgentId
    name: Annotated[str, printable(200)] | None = None


class CreateAgentKey(Body):
    """A key for an agent's software."""

    name: Annotated[str, printable(200)]
    agent_id: AgentId
    agent_name: Annotated[str, printable(200)] | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))] = Field(
        default_factory=lambda: list(DEFAULT_SCOPES)
    )
    rate_limit_per_hour: Annotated[int, Field(ge=1, le=RATE_LIMIT_PER_HOUR_MAX)] = (
        DEFAULT_RATE_LIMIT_PER_HOUR
    )
    ip_allowlist: Annotated[list[str], Field(max_length=NETWORKS_MAX)] = Field(
        default_factory=list,
        description="Addresses and networks (CIDR) that it may be used from; none: any",
    )
    expires_in_seconds: Annotated[int, Field(ge=1, le=LIFE_MAX_S)] | None = Field(
        default=None, description="How long it is valid; without, until it is revoked"
    )
    metadata: JsonObject | None = None


class CreateApiKey(Body):
    """A key for one more operator."""

    name: Annotated[str, printable(200)]
    mode: Literal["test", "live"] = Field(
        default="test", description="What the key's prefix says; it may do the same"
    )
    workspace_id: Annotated[str, printable(64)] | None = Field(
        default=None, description="The admin's own unless named"
    )


class SetBudget(Body):
    """Limits of a budget over rolling windows, one at least. Left out or null: unlimited."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    max_payments_per_hour: PaymentCount = None
    max_payments_per_day: PaymentCount = None
    max_per_day: UsdLimit = dollars(None)
    max_per_week: UsdLimit = dollars(None)
    max_per_month: UsdLimit = dollars(None)
    max_lifetime: UsdLimit = dollars(None)

    def limits(self) -> BudgetLimits:
        """In payments and micro-USD."""
        return BudgetLimits(
            payments_per_hour=self.max_payments_per_hour,
            payments_per_day=self.max_payments_per_day,
            per_day=self.max_per_day,
            per_week=self.max_per_week,
            per_month=self.max_per_month,
            lifetime=self.max_lifetime,
        )


class CreateWorkspace(Body):
    """A tenant."""

    id: Annotated[
        str, printable(64), WithJsonSchema({"type": "string", "pattern": "^[-_a-zA-Z0-9]{1,64}$"})
    ]
    name: Annotated[str, printable(200)]


def _as_it_was(value: Any = None) -> Any:
    return Field(default_factory=lambda: value, description="As it was unless given")


class DraftLimits(Body):
    """Limits in dollars. Left out: as it was. Null: unlimited."""

    max_per_transaction: UsdLimit = _as_it_was()
    max_per_day: UsdLimit = _as_it_was()
    max_per_week: UsdLimit = _as_it_was()
    max_per_month: UsdLimit = _as_it_was()
    require_approval_above: UsdLimit = _as_it_was()


class DraftPolicy(Body):
    """What would bound a session. Left out: as it was. Null: as null in a new session."""

    limits: DraftLimits = Field(default_factory=DraftLimits)
    allowed_merchants: Merchants | None = _as_it_was()
    allowed_tokens: Tokens | None = _as_it_was()
    allowed_chains: Chains | None = _as_it_was()
    permissions: Permissions | None = _as_it_was()
    conditions: Sentences = _as_it_was([])
    restrictions: Sentences = _as_it_was([])
