"""Request bodies about webhooks."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from api.rest.fields import printable
from api.rest.schemas import Body
from engine.webhooks.addresses import URL_LENGTH_MAX
from engine.webhooks.catalogue import EVENTS, EVERY, OTHER_NAMES

Event = Literal[(*EVENTS, *OTHER_NAMES)]  # type: ignore[valid-type]
Wanted = Literal[(*EVENTS, *OTHER_NAMES, EVERY)]  # type: ignore[valid-type]
Events = Annotated[
    list[Wanted], Field(min_length=1, max_length=100, description='`"*"` stands for all')
]
Url = Annotated[
    str,
    printable(URL_LENGTH_MAX),
    Field(description="`https://…`; `http://` only in the networks that a setting allows"),
]
Description = Annotated[str, printable(500)]


def _as_it_was(value: Any) -> Any:
    return Field(default_factory=lambda: value)


def _instant(text: str) -> str:
    try:
        zone = datetime.fromisoformat(text).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise ValueError("must be a time with a time zone, such as 2026-01-31T09:00:00Z")
    return text


class CreateWebhook(Body):
    """A new endpoint."""

    url: Url
    events: Events
    description: Description | None = None


class ChangeWebhook(Body):
    """What changes of an endpoint. Left out: as it was."""

    url: Url = _as_it_was("")
    events: Events = _as_it_was([])
    description: Description | None = _as_it_was(None)
    active: bool = _as_it_was(True)


class TryWebhook(Body):
    """Which event is made up."""

    event: Event


class ReplayWebhook(Body):
    """Since when all is delivered once more."""

    since: Annotated[
        str,
        Field(
            max_length=40,
            description="ISO 8601 with a time zone, such as 2026-01-31T09:00:00Z",
            json_schema_extra={"format": "date-time"},
        ),
        AfterValidator(_instant),
    ]

    @property
    def since_ms(self) -> int:
        """In milliseconds since the epoch; what is before that is 0."""
        return max(0, int(datetime.fromisoformat(self.since).timestamp() * 1000))
