"""What callers get, field by field. Amounts are dollars, times ISO 8601 in UTC.

`views` fills these; OpenAPI is made from them.
"""

from collections.abc import Iterable
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict, is_typeddict

Dollars = int | float


class ErrorFields(TypedDict):
    """What went wrong: a stable code, a sentence, and facts such as the `field`."""

    code: str
    message: str
    details: NotRequired[dict[str, Any]]


class ErrorAnswer(ErrorFields):
    """Every error, in both shapes that clients read: as an object, and at the top."""

    error: ErrorFields
    retry_after: NotRequired[int]


class LimitsAnswer(TypedDict):
    """Limits of a session; null is unlimited."""

    max_per_transaction: Dollars | None
    max_per_day: Dollars | None
    max_per_week: Dollars | None
    max_per_month: Dollars | None
    require_approval_above: Dollars | None


class ConditionLeft(TypedDict):
    """What a cap over time still allows: dollars, or a number of payments."""

    condition: str
    remaining: Dollars
    unit: Literal["USD", "payments"]


class SessionAnswer(TypedDict):
    """A session. `session_token` is in the answer that creates it and in no other."""

    id: str
    parent_id: str | None
    type: str
    label: str | None
    agent_id: str
    agent_name: str | None
    user_wallet: str
    limits: LimitsAnswer
    allowed_merchants: list[str] | None
    allowed_tokens: list[str] | None
    allowed_chains: list[str] | None
    permissions: list[str]
    conditions: list[str]
    restrictions: list[str]
    policy_version: int
    approvals_required: int
    status: str
    is_active: bool
    resumes_at: str | None
    created_at: str
    expires_at: str
    ended_at: str | None
    remaining_today: Dollars | None
    remaining_this_week: Dollars | None
    remaining_this_month: Dollars | None
    remaining_by_condition: list[ConditionLeft]
    mint_pkp: bool
    consent: str
    grant_hash: str
    metadata: dict[str, Any]
    pkp_address: NotRequired[str]
    pkp_token_id: NotRequired[str]
    typed_data: NotRequired[dict[str, Any]]


class CreatedSession(SessionAnswer):
    """A new session with its token, which is not shown again."""

    session_token: str
    token: str


class Revoked(TypedDict):
    """The session is ended."""

    success: Literal[True]


class DecisionAnswer(TypedDict):
    """Why a payment is allowed or denied. Amounts in `evidence` are micro-USD."""

    allowed: bool
    code: str
    rule: str
    reason: str
    evidence: dict[str, Any]


class RemainingAnswer(TypedDict):
    """What the limits leave at the moment of the answer; null: unlimited.

    `payments` is a number of payments, everything else dollars.
    """

    today: Dollars | None
    this_week: Dollars | None
    this_month: Dollars | None
    lifetime: Dollars | None
    payments: int | None
    with_token: Dollars | None
    to_merchant: Dollars | None


class TermsAnswer(TypedDict):
    """What was agreed to: an offer of a 402 answer, and the request that it pays for.

    `amount` is in the token's smallest unit. A transfer has no `resource`.
    """

    scheme: Literal["exact"]
    network: str
    asset: str
    amount: str
    pay_to: str
    resource: str | None
    method: str
    body_sha256: str | None
    timeout_s: int


class SettlementAnswer(TypedDict):
    """How far the chain is with a signed payment; until it says anything, what was reported."""

    state: Literal[
        "signed",
        "submitted",
        "unknown",
        "pending",
        "confirmed",
        "final",
        "orphaned",
        "failed",
        "expired",
        "accepted",
    ]
    network: str
    asset: str
    valid_before_s: int
    tx_hash: str | None
    block_number: int | None


class PaymentAnswer(TypedDict):
    """A payment: what was asked, what was decided, and what became of the hold.

    `remaining_today`, `…_week` and `…_month` are as the decision, the capture or the void left
    them; `remaining_now` is as of this answer, null while nobody can say.
    """

    id: str
    payment_id: str
    session_id: str
    session_type: str | None
    session_label: str | None
    merchant_id: str | None
    status: Literal["pending", "confirmed", "failed", "expired"]
    state: Literal["denied", "held", "captured", "voided", "expired"]
    amount_usd: Dollars
    amount: Dollars
    captured_usd: Dollars
    currency: Literal["USD"]
    payment_token: str
    chain: str
    description: str | None
    metadata: dict[str, Any]
    confirmed_at: NotRequired[str]
    product_details: NotRequired[dict[str, Any]]
    customer_wallet: NotRequired[str]
    customer_email: NotRequired[str]
    redirect_url: NotRequired[str]
    created_at: str
    expires_at: str | None
    closed_at: str | None
    approval_id: str | None
    decision: DecisionAnswer
    remaining_today: Dollars | None
    remaining_this_week: Dollars | None
    remaining_this_month: Dollars | None
    remaining_now: NotRequired[RemainingAnswer | None]
    terms: NotRequired[TermsAnswer]
    settlement: NotRequired[SettlementAnswer]
    transaction_signature: NotRequired[str]


class SignedPayment(PaymentAnswer):
    """A payment with its signature: `payment` is x402's PaymentPayload, `payment_signature` that in
    base64, which is the value of the header `PAYMENT-SIGNATURE`."""

    payment: dict[str, Any]
    payment_signature: str
    network: str
    asset: str
    nonce: str
    valid_before_s: int


class SmartPaymentAnswer(PaymentAnswer):
    """A payment that was spent at once. Nothing here moves a token: settlement is the caller's."""

    gasless_used: Literal[False]
    settlement_complete: Literal[False]
    confirmed_in_ms: int
    requires_signature: Literal[False]
    next_steps: str


class DeniedPayment(PaymentAnswer, ErrorAnswer):
    """A payment that the policy denies: the payment and the error in one."""


class Pagination(TypedDict):
    """Where a page is."""

    page: int
    limit: int
    total: int
    total_pages: int


class PaymentsPage(TypedDict):
    """A page of payments, the newest first."""

    data: list[PaymentAnswer]
    pagination: Pagination


class GrantAnswer(TypedDict):
    """One operator's grant; it does not count if the key is revoked before the approval is over."""

    key_id: str
    granted_at: str
    counts: bool


class ApprovalAnswer(TypedDict):
    """What a denied payment waits for, and what became of it.

    `payment_id` is the payment that was decided with the last grant, `code` why it was refused.
    """

    id: str
    session_id: str
    session_type: str | None
    session_label: str | None
    state: Literal["waiting", "granted", "denied", "expired", "refused"]
    digest: str
    policy_version: int
    approvals_required: int
    grants: list[GrantAnswer]
    denied_by: str | None
    reason: str | None
    code: str | None
    denied_payment_id: str
    payment_id: str | None
    amount_usd: Dollars
    currency: Literal["USD"]
    merchant_id: str | None
    payment_token: str
    chain: str
    capture_method: Literal["automatic", "manual"]
    description: str | None
    metadata: dict[str, Any]
    created_at: str
    expires_at: str
    ended_at: str | None


class ApprovalsPage(TypedDict):
    """A page of approvals, the newest first."""

    data: list[ApprovalAnswer]
    pagination: Pagination


class AgentAnswer(TypedDict):
    """A registry entry."""

    agent_id: str
    name: str | None
    created_at: str


class RegisteredAgent(TypedDict):
    """Whether the agent was new."""

    agent_id: str
    registered: bool


class Cleared(TypedDict):
    """The budget is lifted."""

    success: Literal[True]


class CreatedWorkspace(TypedDict):
    """A tenant and its first operator key, which is not shown again."""

    id: str
    name: str
    full_key: str


class LogIdentity(TypedDict):
    """The audit log and the key that its checkpoints are verified with."""

    id: str
    origin: str
    verifier_key: str


class DeploymentAnswer(TypedDict):
    """Where sessions and checkpoints are anchored."""

    chain: str
    registry: str
    anchors: str
    log: LogIdentity


class ConsistencyAnswer(TypedDict):
    """The hashes of a consistency proof, in the order of RFC 6962."""

    proof: list[str]


class AnchorFields(TypedDict):
    """A checkpoint on its way to the chain or on it."""

    size: int
    root: str
    state: str
    tx_hash: str
    block_number: int | None


class AnchorAnswer(TypedDict):
    """The newest anchor."""

    anchor: AnchorFields | None


class ResumedChain(TypedDict):
    """The newest block that was given up."""

    block_number: int
    block_hash: str


def built_late(types: Iterable[Any]) -> None:
    """Have what would check the answers among these built when one is first checked or documented.

    Most never are, and building all of it takes longer than all else of the application.
    """
    for each in types:
        if is_typeddict(each):
            with_config(ConfigDict(defer_build=True))(each)


built_late(list(globals().values()))
