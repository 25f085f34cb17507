"""Many sessions revoked together: what is asked, and what is answered."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from api.rest.answers import built_late
from api.rest.fields import Chain, printable
from api.rest.queries import SessionStatus
from api.rest.schemas import Body
from api.rest.views import time_text
from engine.sessions.inventory import Filter, digest
from engine.sessions.lifecycle import Wanted
from engine.sessions.session import SessionView


class SessionsFilter(Body):
    """Which live sessions; what is left out or null is any."""

    status: SessionStatus | None = None
    type: Literal["agent", "app"] | None = None
    agent_id: Annotated[str, printable(128)] | None = None
    label: Annotated[str, printable(100)] | None = None
    chain: Chain | None = Field(
        default=None, description="Those that may spend there; without chains of its own, one may"
    )
    search: Annotated[str, printable(128)] | None = Field(
        default=None,
        description="Part of an id, a label, an agent's id or name, or the beginning of the "
        "address of the session's key or owner, in any case",
    )

    def sought(self, now_ms: int) -> Filter:
        """The sessions as they are at `now_ms`."""
        wanted = Wanted(now_ms, self.status, self.type, self.agent_id, self.label)
        return Filter(wanted, self.chain, self.search)


class RevokeMany(Body):
    """Sessions to look at with `preview`, or to end as the `selection` that a preview answered."""

    filter: SessionsFilter
    preview: bool = Field(default=False, description="Only tell which they are")
    selection: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="What the preview answered; needed without `preview`"
    )


class SelectedSession(TypedDict):
    """One of the sessions that match; `status` is as it was before any was ended."""

    id: str
    type: str
    label: str | None
    agent_id: str
    status: str
    expires_at: str


class ManyRevoked(TypedDict):
    """How many live sessions match and how many of them were ended now: all, or none of a preview.

    `selection` names exactly these sessions. Those beneath them end with them, and are not counted.
    """

    preview: bool
    count: int
    revoked: int
    selection: str
    sessions: list[SelectedSession]


def many_json(views: Sequence[SessionView], revoked: int | None) -> ManyRevoked:
    """What is answered; `revoked` is None for a preview."""
    return {
        "preview": revoked is None,
        "count": len(views),
        "revoked": revoked or 0,
        "selection": digest(views),
        "sessions": [
            {
                "id": view.id,
                "type": view.type,
                "label": view.label,
                "agent_id": view.agent_id,
                "status": view.state,
                "expires_at": time_text(view.expires_ms),
            }
            for view in views
        ],
    }


built_late(list(globals().values()))
