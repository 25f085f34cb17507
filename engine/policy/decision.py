"""What goes into a decision and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import msgspec

from engine.policy.conditions import Condition, InForce, in_force
from engine.policy.identifiers import (
    IdentifierError,
    normalise_asset,
    normalise_chain,
    normalise_merchant,
)
from engine.policy.limits import Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD

Code = Literal[
    "SESSION_REVOKED",
    "SESSION_EXPIRED",
    "SESSION_PAUSED",
    "SESSION_NOT_ANCHORED",
    "SESSION_NOT_STARTED",
    "OUTSIDE_ACTIVE_HOURS",
    "PARAMETERS_MISMATCH",
    "PERMISSION_NOT_ALLOWED",
    "CHAIN_NOT_ALLOWED",
    "TOKEN_NOT_ALLOWED",
    "MERCHANT_NOT_ALLOWED",
    "LIMIT_EXCEEDED",
    "APPROVAL_REQUIRED",
    "ALLOWED",
]
"""Every code a decision can carry, by precedence; `engine.policy.rules.RULES` explains each."""

Evidence = Mapping[str, int | str | list[int] | None]
"""The facts a decision rests on, ready for JSON.

Amounts are in micro-USD, instants in milliseconds. Where a cap on payments decides, `limit`, `used`
and `requested` count payments.
"""


class Standing(Enum):
    """How a session stands, apart from what the clock says."""

    ACTIVE = "active"
    PAUSED = "paused"
    REVOKED = "revoked"
    PENDING = "pending"
    """The registration is not yet confirmed on the chain."""
    MISMATCH = "mismatch"
    """The parameters do not hash to what the chain holds."""


STANDING_OF_STATE = {
    "awaiting_consent": Standing.PENDING,
    "registering": Standing.PENDING,
    "active": Standing.ACTIVE,
    "paused": Standing.PAUSED,
    "expired": Standing.ACTIVE,  # the clock decides, and says so in its own words
    "revoked": Standing.REVOKED,
    "mismatch": Standing.MISMATCH,
}
"""How a session in each of its states stands."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a session may do, from `valid_from_ms` until just before `valid_until_ms`.

    A list that is None allows anything; an empty one allows nothing. Merchants, tokens and chains
    are in canonical form (`engine.policy.identifiers`). `conditions` are the grant's, and
    `restrictions` the operator's, which can only narrow, as can those of each session `above`.
    """

    limits: Limits
    permissions: frozenset[str] | None
    merchants: frozenset[str] | None
    tokens: frozenset[str] | None
    chains: frozenset[str] | None
    valid_from_ms: int
    valid_until_ms: int
    conditions: tuple[Condition, ...] = ()
    restrictions: tuple[Condition, ...] = ()
    above: tuple[tuple[Condition, ...], ...] = ()
    in_force: InForce = field(init=False, repr=False, compare=False)
    """What conditions and restrictions come to together."""
    plans: dict[tuple[bool, bool], tuple[Any, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """The memory of `engine.policy.decide`."""

    def __post_init__(self) -> None:
        together = in_force(self.conditions, self.restrictions, *self.above)
        object.__setattr__(self, "in_force", together)
        # A misspelt entry would never match and nobody would learn why, so it is refused here,
        # once per session, and not left to be compared with every request.
        assert self.valid_from_ms < self.valid_until_ms
        assert all(normalise_merchant(merchant) == merchant for merchant in self.merchants or ())
        assert all(normalise_asset(token) == token for token in self.tokens or ())
        assert all(normalise_chain(chain) == chain for chain in self.chains or ())


class PaymentRequest(msgspec.Struct, frozen=True):
    """A payment that an agent asks for; identifiers are in canonical form.

    `amount` is in micro-USD and `token` is the asset that pays; `token_priced` says whether a USD
    price is configured for it, without which the amount cannot be held against a limit in dollars.
    Raises `IdentifierError` if the token lives on another chain than `chain`: the chain that was
    allowed would not be the chain that pays. `pay_to` is the account that is paid, in lower case,
    where it is known beside the merchant: rules on merchants look at both.
    """

    amount: int
    merchant: str | None
    token: str
    chain: str
    token_priced: bool
    permission: str = "pay"
    pay_to: str | None = None

    def __post_init__(self) -> None:
        assert type(self.amount) is int
        assert 0 < self.amount <= AMOUNT_MAX_MICRO_USD
        if not self.token.startswith(self.chain + "/"):
            raise IdentifierError("the token is not on the chain of the payment")


class Remaining(msgspec.Struct):  # these are made for every decision, and in C
    """What is left after the decision, never negative; None: unlimited.

    Micro-USD, but `payments`: how many. Of several caps on the payments, on the token or on the
    merchant of the request, the one that leaves least.
    """

    per_day: int | None
    per_week: int | None
    per_month: int | None
    lifetime: int | None = None
    payments: int | None = None
    token: int | None = None
    merchant: int | None = None

    def to_json(self) -> dict[str, int | None]:
        """By name."""
        return {  # `asdict` would take longer than the decision
            "per_day": self.per_day,
            "per_week": self.per_week,
            "per_month": self.per_month,
            "lifetime": self.lifetime,
            "payments": self.payments,
            "token": self.token,
            "merchant": self.merchant,
        }


class Decision(msgspec.Struct):
    """The answer to a request: why, by which rule, on which facts, and what is left."""

    allowed: bool
    code: Code
    rule: str
    reason: str
    evidence: Evidence
    remaining: Remaining

    def to_json(self) -> dict[str, Any]:
        """The decision as it is stored, recorded and shown."""
        return {
            "allowed": self.allowed,
            "code": self.code,
            "rule": self.rule,
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "remaining": self.remaining.to_json(),
        }
