"""What may stand in a query: which part of a list. Filters that do not exist are refused."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.rest.answers import Pagination
from api.rest.exports import Format
from api.rest.fields import printable
from api.rest.webhook_bodies import Wanted
from engine.errors import InvalidInput
from engine.ledger.analytics import DAYS_MAX
from engine.ledger.approval import State as ApprovalState
from engine.ledger.payment import State
from engine.policy.limits import DAY_MS
from engine.webhooks.catalogue import EVERY

_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))?"
)


def _instant(value: Any) -> int:
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("must be a date, or a date and time with its zone (RFC 3339)")
    moment = datetime.fromisoformat(value)
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return round(moment.timestamp() * 1_000)


def _end(value: Any) -> int:
    moment_ms = _instant(value)
    return moment_ms if "T" in value else moment_ms + DAY_MS


def _check_order(first: str, from_ms: int | None, last: str, until_ms: int | None) -> None:
    if from_ms is not None and until_ms is not None and until_ms < from_ms:
        raise InvalidInput(last, f"is before {first}")


_INSTANT_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^{_INSTANT.pattern}$"})
Instant = Annotated[int, BeforeValidator(_instant), _INSTANT_SCHEMA]
"""A date (its first moment in UTC), or a date and time; the value is milliseconds since 1970."""
End = Annotated[int, BeforeValidator(_end), _INSTANT_SCHEMA]
"""Where a range ends: a date is in it, a time is not. The value, in milliseconds, is not in it."""
Kind = Annotated[str, Field(max_length=40, pattern=r"^[a-z_]+(\.[a-z_]+)+$")]


PaymentStatus = Literal[
    "pending",
    "confirming",
    "processing",
    "confirmed",
    "completed",
    "succeeded",
    "failed",
    "expired",
    "refunded",
]
PAYMENT_STATES: Mapping[PaymentStatus, tuple[State, ...]] = {
    "pending": ("held",),
    "confirming": ("held",),
    "processing": ("held",),
    "confirmed": ("captured",),
    "completed": ("captured",),
    "succeeded": ("captured",),
    "failed": ("denied", "voided"),
    "expired": ("expired",),
    "refunded": (),
}
"""What payments are called in lists: by `status` of an answer, and by other names that clients have
for it. Nothing is ever `refunded` here."""

SessionStatus = Literal[
    "awaiting_consent", "registering", "active", "paused", "expired", "revoked", "mismatch"
]


class Page(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid")

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20

    @property
    def offset(self) -> int:
        """How many entries come before the page."""
        return (self.page - 1) * self.limit

    def pagination(self, total: int) -> Pagination:
        """Where this page is among `total` entries."""
        return {
            "page": self.page,
            "limit": self.limit,
            "total": total,
            "total_pages": -(-total // self.limit),
        }


class WantedPayments(BaseModel):
    """Which payments: of one session or all that the caller may see, in one status or every, that
    were asked for from `from_date` to `to_date`."""

    model_config = ConfigDict(extra="forbid")

    session_id: str | None = None
    status: PaymentStatus | None = None
    from_date: Instant | None = None
    to_date: End | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order("from_date", self.from_date, "to_date", self.to_date)
        return self

    @property
    def states(self) -> Collection[State] | None:
        """The states of such payments; None: all."""
        return None if self.status is None else PAYMENT_STATES[self.status]


class PaymentsQuery(WantedPayments, Page):
    """Which payments, and which part of the list."""


class ApprovalsQuery(Page):
    """Which approvals; of one session or all, in one state or every."""

    session_id: str | None = None
    state: ApprovalState | None = None


class SessionsQuery(Page):
    """Which sessions, in which part of the list; clients that know no pages get the newest
    thousand."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    status: SessionStatus | None = None
    type: Literal["agent", "app"] | None = None
    agent_id: Annotated[str, printable(128)] | None = None
    label: Annotated[str, printable(100)] | None = None


class AgentKeysQuery(Page):
    """Which agent keys: of all agents, or of one."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    agent_id: Annotated[str, printable(128)] | None = None


class Acts(BaseModel):
    """Which acts: of one actor, of some kinds, from `start_date` to `end_date`."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, printable(128)] | None = None
    action: Annotated[list[Kind], Field(default_factory=list, max_length=20)]
    start_date: Instant | None = None
    end_date: End | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order("start_date", self.start_date, "end_date", self.end_date)
        return self


class ActsQuery(Acts, Page):
    """Which acts, and which part of the list."""


class ActsExport(Acts):
    """Which acts, and as what."""

    format: Format = "json"


class PaymentsExport(WantedPayments):
    """Which payments, and as what."""

    format: Format = "json"


class AnalyticsQuery(BaseModel):
    """Which days, and whose payments: of one agent, or of all that the caller may see."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[int, Field(ge=1, le=DAYS_MAX)] = 30
    agent_id: Annotated[str, printable(128)] | None = None


class EventsQuery(BaseModel):
    """Which events: of some names, or all; those since a time, or from now on."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[Wanted], Field(default_factory=lambda: [EVERY], min_length=1)]
    since: Instant | None = None
