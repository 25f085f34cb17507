"""What may stand in a query: which part of a list. Filters that do not exist are refused."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.rest.answers import Pagination
from api.rest.exports import Format
from api.rest.fields import printable
from api.rest.webhook_bodies import Wanted
from engine.ledger.analytics import DAYS_MAX
from engine.ledger.approval import State
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


Instant = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "pattern": f"^{_INSTANT.pattern}$"}),
]
"""A date (its first moment in UTC), or a date and time; the value is milliseconds since 1970."""
Kind = Annotated[str, Field(max_length=40, pattern=r"^[a-z_]+(\.[a-z_]+)+$")]


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


class PaymentsQuery(Page):
    """Which payments; of one session, or all that the caller may see."""

    session_id: str | None = None


class ApprovalsQuery(Page):
    """Which approvals; of one session or all, in one state or every."""

    session_id: str | None = None
    state: State | None = None


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
    """Which acts: of one actor, of some kinds, from `start_date` on and before `end_date`."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, printable(128)] | None = None
    action: Annotated[list[Kind], Field(default_factory=list, max_length=20)]
    start_date: Instant | None = None
    end_date: Instant | None = None


class ActsQuery(Acts, Page):
    """Which acts, and which part of the list."""


class ActsExport(Acts):
    """Which acts, and as what."""

    format: Format = "json"


class PaymentsExport(BaseModel):
    """Which payments, of one session or all that the caller may see, and as what."""

    model_config = ConfigDict(extra="forbid")

    session_id: str | None = None
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
