"""What the tools answer, field by field. Amounts are decimal text in dollars unless said otherwise;
times ISO 8601 in UTC; null is "unlimited" of a limit and "none" of anything else.
"""

from typing import Literal

from typing_extensions import TypedDict

Amount = str


class Windows(TypedDict):
    """Dollars over the last 24 hours, 7 and 30 days."""

    today: Amount | None
    this_week: Amount | None
    this_month: Amount | None


class InventorySession(TypedDict):
    """A session. `remaining_limit` is the least of what remains over the three windows."""

    session_id: str
    parent_id: str | None
    label: str | None
    agent_id: str
    status: str
    is_active: bool
    remaining_limit: Amount | None
    remaining: Windows
    expires_at: str


class Inventory(TypedDict):
    """The sessions that the caller may see, the newest first; `total` says how many there are."""

    sessions: list[InventorySession]
    total: int


class Limits(TypedDict):
    """The limits of the session's grant."""

    max_per_transaction: Amount | None
    max_per_day: Amount | None
    max_per_week: Amount | None
    max_per_month: Amount | None
    require_approval_above: Amount | None


class ConditionLeft(TypedDict):
    """What a cap over time leaves: dollars, or a number of payments."""

    condition: str
    remaining: str
    unit: Literal["USD", "payments"]


class Budget(TypedDict):
    """What a session may still spend."""

    session_id: str
    label: str | None
    status: str
    is_active: bool
    expires_at: str
    limits: Limits
    remaining: Windows
    remaining_by_condition: list[ConditionLeft]
    allowed_merchants: list[str] | None


class LimitUsed(TypedDict):
    """A limit over time that the payment would use, as it is without it."""

    name: str
    budget: str | None
    unit: Literal["USD", "payments"]
    limit: str
    used: str
    remaining: str


class Objection(TypedDict):
    """A rule that is against the payment."""

    rule: str
    code: str
    reason: str


class Simulation(TypedDict):
    """What would be decided now; nothing was held or recorded.

    `allowed_at` is when the same would be allowed if nothing else happened until then.
    """

    session_id: str
    allowed: bool
    code: str
    rule: str
    reason: str
    objections: list[Objection]
    limits: list[LimitUsed]
    allowed_at: str | None


class Approval(TypedDict):
    """What waits for operators. Once it is granted `payment_id` names the payment; `code` says why
    it was refused though it was granted."""

    approval_id: str
    state: Literal["waiting", "granted", "denied", "expired", "refused"]
    code: str | None
    reason: str | None
    payment_id: str | None
    amount: Amount
    merchant_id: str | None
    description: str | None
    grants: int
    approvals_required: int
    expires_at: str


class SignedPayment(TypedDict):
    """A payment that is held and signed.

    Send the request again with `payment_signature` as its header `PAYMENT-SIGNATURE`. `amount` is
    in the token's smallest unit, `valid_before_s` seconds since the epoch.
    """

    payment_id: str
    amount_usd: Amount
    amount: str
    network: str
    asset: str
    pay_to: str
    resource: str
    method: str
    payment_signature: str
    valid_before_s: int
    remaining: Windows


class Bought(TypedDict):
    """What was paid for an answer; `amount` is in the token's smallest unit."""

    payment_id: str
    idempotency_key: str
    amount_usd: Amount
    amount: str
    network: str
    asset: str
    pay_to: str
    tx_hash: str | None
    settlement: str | None


class Fetched(TypedDict):
    """What a URL answered, and what was paid for it.

    The body is in `body`, or in `body_base64` if it is no text; it is cut off if `truncated`, after
    so much of its `body_bytes`.
    """

    status: int
    content_type: str | None
    body: str | None
    body_base64: str | None
    body_bytes: int
    truncated: bool
    payment: Bought | None


class Check(TypedDict):
    """One check of an evidence file."""

    name: str
    verdict: str
    reason: str


class Verification(TypedDict):
    """Whether an evidence file holds, by the chain at `registry`, and what it does not prove."""

    verdict: Literal["verified", "tampered", "pending", "unavailable", "unbindable"]
    reason: str
    checks: list[Check]
    registry: str
    not_proven: list[str]
