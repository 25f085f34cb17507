"""The events of a workspace as a stream that stays open, for those who cannot receive webhooks."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import EventSourceResponse

from api.listening import EventStream, Streams
from api.rest.auth import Bearer, EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.queries import EventsQuery

router = APIRouter(tags=["webhooks"], responses=documented(401, 422, 503))

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", pattern="^[0-9]{1,15}$", description="the last `id`")
]


@router.get(
    "/api/v1/events",
    summary="Listen to events",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def listen(
    request: Request,
    engine: EngineOf,
    caller: OperatorOf,
    secret: Bearer,
    wanted: Annotated[EventsQuery, Query()],
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events: those that come after `Last-Event-ID`, or `since` a time, or from now
    on. `data` is what a webhook is sent."""
    streams: Streams = request.app.state.streams
    last = None if last_event_id is None else int(last_event_id)
    return EventStream(
        streams,
        engine.feed,
        caller=caller.key_id,
        workspace_id=caller.workspace_id,
        place=engine.feed.begin(last, wanted.since),
        wanted=wanted.events,
        allowed=lambda: engine.access.operator(secret or ""),
    )
