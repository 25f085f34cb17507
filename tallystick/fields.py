"""What a new session can be given, for `Client.create_session` and whatever opens sessions."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

Dollars = str | int | float
"""A decimal string such as `"12.50"`, or a whole number. A float is only what a server answered:
its shortest text is the exact amount again."""


class LimitFields(TypedDict, total=False):
    """Limits in dollars. Left out: the server's default. None: unlimited."""

    max_per_transaction: Dollars | None
    max_per_day: Dollars | None
    """In any 24 hours."""
    max_per_week: Dollars | None
    """In any 7 days."""
    max_per_month: Dollars | None
    """In any 30 days."""
    require_approval_above: Dollars | None


class ChangedFields(TypedDict, total=False):
    """The fields of `POST /api/v1/ai/sessions` but for `agent_id`. What is left out has the
    server's default."""

    agent_name: str | None
    user_wallet: str
    """The owner's. Only a session beneath another one does without: it has that one's."""
    label: str | None
    type: Literal["agent", "app"]
    limits: LimitFields
    allowed_merchants: Sequence[str] | None
    allowed_tokens: Sequence[str] | None
    allowed_chains: Sequence[str] | None
    """CAIP-2, such as `eip155:8453`."""
    permissions: Sequence[str] | None
    conditions: Sequence[str]
    """Sentences, such as `at most 10 payments per hour`."""
    duration_hours: Dollars
    """Above 0, at most 168."""
    approvals_required: int | None
    mint_pkp: bool | None
    """Whether the session gets an identity on the chain, without which there is no evidence."""
    await_consent: bool
    metadata: Mapping[str, Any] | None


class SessionFields(ChangedFields, total=False):
    """The fields of `POST /api/v1/ai/sessions`."""

    agent_id: Required[str]


class FilterFields(TypedDict, total=False):
    """Which sessions. What is left out, or None, is any."""

    status: str | None
    type: Literal["agent", "app"] | None
    agent_id: str | None
    label: str | None


class PaymentFilterFields(TypedDict, total=False):
    """Which payments. What is left out, or None, is any."""

    session_id: str | None
    status: str | None
    """`pending`, `confirmed`, `failed` or `expired`."""
    from_date: str | None
    """A date, or a date and time with its zone (RFC 3339)."""
    to_date: str | None
    """The same: a date is still in it, a time is not."""


class BudgetFields(TypedDict, total=False):
    """What all sessions of an agent, or of a workspace, may spend together. Left out or None:
    unlimited."""

    max_payments_per_hour: int | None
    max_payments_per_day: int | None
    max_per_day: Dollars | None
    max_per_week: Dollars | None
    max_per_month: Dollars | None
    max_lifetime: Dollars | None


class WebhookFields(TypedDict, total=False):
    """What changes of a webhook. Left out: as it was."""

    url: str
    events: Sequence[str]
    description: str | None
    active: bool


class RevocationFields(FilterFields, total=False):
    """Which live sessions to revoke together."""

    chain: str | None
    search: str | None
    """Part of an id, a label, an agent's id or name, or the beginning of the address of the
    session's key or owner, in any case."""
