"""Events as a stream that stays open (server-sent events, HTML standard 9.2).

    id: 17
    data: {"id":"evt_sess_…_4","event":"payment.created",…}

`id` is the event's place in the audit log, `data` the body that webhooks have. A place by itself,
without `data`, is a heartbeat: listeners come back from there, too.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterator

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from engine.errors import Unauthenticated, Unavailable
from engine.webhooks.feed import POLL_MS, Feed
from engine.webhooks.outbox import Event

HEARTBEAT_S = 15.0
"""A silent stream says so often that it is still there."""
RECONNECT_MS = 2_000
"""So long a listener waits before it comes back, if it does as it is told."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""For every proxy on the way: hand each event on at once."""


class Streams:
    """The streams that are open in an application. A server that is to stop waits for its answers
    to end, and has these end first."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self.stopping = False

    def stop(self) -> None:
        """End them all; on the event loop."""
        self.stopping = True
        for waiting in self._waiting:
            waiting.set()

    @contextlib.contextmanager
    def open(self) -> Iterator[asyncio.Event]:
        """Be one of them; the event is set when it has to end."""
        ending = asyncio.Event()
        self._waiting.add(ending)
        try:
            yield ending
        finally:
            self._waiting.discard(ending)


class EventStream(EventSourceResponse):
    """A stream of a workspace's `wanted` events from a place on; see `Feed`.

    `allowed` is called before anything is sent, on a thread, and ends the stream by
    `Unauthenticated`: nothing is sent that happened after the caller's key was revoked. If too many
    listen the answer is that of `RateLimited`.
    """

    def __init__(
        self,
        streams: Streams,
        feed: Feed,
        *,
        caller: str,
        workspace_id: str,
        place: int,
        wanted: Collection[str],
        allowed: Callable[[], object],
    ) -> None:
        super().__init__((), headers=HEADERS)
        self._streams, self._feed, self._caller = streams, feed, caller
        self._workspace_id, self._place, self._wanted = workspace_id, place, wanted
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        seat = self._feed.seat(self._caller, self._workspace_id)
        with seat, self._streams.open() as ending:
            async with contextlib.aclosing(self._said(ending)) as said:
                self.body_iterator = said
                await super().__call__(scope, receive, send)

    async def _said(self, ending: asyncio.Event) -> AsyncGenerator[bytes]:
        place, clock = self._place, asyncio.get_running_loop().time
        yield format_sse_event(retry=RECONNECT_MS, id=_last(place))
        spoke = clock()
        while not self._streams.stopping:
            try:
                events, after = await run_in_threadpool(self._look, place)
            except (Unauthenticated, Unavailable):
                return
            for event in events:
                yield format_sse_event(data_str=event.body().decode(), id=str(event.place))
                spoke = clock()
            if after == place:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ending.wait(), POLL_MS / 1_000)
            place = after
            if clock() - spoke >= HEARTBEAT_S:
                yield format_sse_event(comment="nothing new", id=_last(place))
                spoke = clock()

    def _look(self, place: int) -> tuple[list[Event], int]:
        found = self._feed.next(self._workspace_id, place, self._wanted)
        self._allowed()
        return found


def _last(place: int) -> str | None:
    """The id of what was before a place; there is nothing before the first."""
    return str(place - 1) if place else None
