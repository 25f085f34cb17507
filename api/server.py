"""Serve an application with uvicorn, in the foreground or on a thread of its own."""

import asyncio
import errno
import gc
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn
from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from api.gate.gate import Gate
from api.gate.requests import BATCH_BYTES_MAX
from api.gate.store import PREFIX, Prices, store_routes
from api.gate.unpaid import BeginsUnpaid
from api.listening import Streams
from api.mcp.endpoint import McpEndpoint
from api.on_demand import OnDemand
from api.rest.app import create_app
from api.rest.lean_payments import LeanPayments
from api.studio.place import PREFIX as STUDIO_PREFIX
from api.studio.place import check_origin
from api.studio.uploads import FORM_BYTES_MAX
from engine.engine import Engine
from engine.errors import CannotStart
from engine.payments.facilitator import Facilitator
from engine.selling.currency import read_price
from engine.selling.opening import read_selling

if TYPE_CHECKING:
    from api.mcp.tool import Tool

GC_ALLOCATIONS = 20_000
"""So many objects more than were freed bring the garbage collector; Python's own 700 brings it
several times in one batch of requests, to find nothing."""

FACILITATOR_PREFIX = "/facilitator"
MCP_PATH = "/mcp"
MCP_STORE_PATH = "/mcp/store"
STOPPED_AFTER_S = 5
"""So long a server that is asked to stop waits for the answers that it began."""
CLOSING_INTERVAL_S = 0.1
LARGER_BODIES = {
    **dict.fromkeys((PREFIX, MCP_PATH, "/api/v1/evidence"), BATCH_BYTES_MAX),
    **dict.fromkeys((f"{STUDIO_PREFIX}/log", f"{STUDIO_PREFIX}/log.json"), FORM_BYTES_MAX),
}
"""Below which paths a body may be longer than elsewhere."""
_OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)
"""Why no socket is bound to a port; whatever else keeps it from being bound is of the host."""


class AppServer:
    """One application behind one listening socket. `port` 0 takes a free one; see `url`."""

    def __init__(
        self,
        app: FastAPI,
        host: str,
        port: int,
        *,
        http: type[asyncio.Protocol] | Literal["h11"] = "h11",
    ) -> None:
        """Bind at once, so that a port in use is refused before anything runs.

        Raises:
            CannotStart: the address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where it is told that this is TCP; with it, every
        # answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            setting = "PORT" if error.errno in _OF_THE_PORT else "HOST"
            raise CannotStart(
                f"TALLYSTICK_{setting}: cannot listen on {host}:{port}: {error}"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{shown}:{self.port}"
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=http,
                ws="none",  # there are none, and an upgrade to one would be left unanswered
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=STOPPED_AFTER_S,
            )
        )
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        with seldom_collecting():
            self._server.run(sockets=[self._socket])

    def __enter__(self) -> Self:
        """Serve on a thread until the block ends."""
        # Before the thread has started, so that whoever connects at once waits and is not refused.
        self._socket.listen()
        self._thread = threading.Thread(target=self.run, name="server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()


class _Uvicorn(uvicorn.Server):
    """Ends the streams of its application first, since it waits for all answers to end, and tells
    connections to close that were accepted just before and made after all others were told."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        streams: Streams | None = getattr(self.config.app.state, "streams", None)  # type: ignore[union-attr]
        if streams is not None:
            streams.stop()
        known = set(self.server_state.connections)
        closing = asyncio.create_task(self._close_others(known))
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()

    async def _close_others(self, known: set[Any]) -> None:
        while True:
            await asyncio.sleep(CLOSING_INTERVAL_S)
            others = self.server_state.connections - known
            known |= others
            for connection in others:
                connection.shutdown()


class Server(AppServer):
    """One engine behind one listening socket."""

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        """Bind at once.

        Raises:
            CannotStart: the address cannot be bound, the facilitator's claims cannot be used, or
                what is sold is not to be paid as the settings say.
        """
        super().__init__(server_app(engine), host, port, http=LeanPayments)


def server_app(engine: Engine) -> FastAPI:
    """Everything that a server has: REST, the Studio, the store if it is sold, the facilitator if
    it has one.

    Raises:
        CannotStart: see `Server`.
    """
    selling = read_selling(engine.settings, engine.deployment, engine.networks)
    routers = []
    if selling is not None:
        settings = engine.settings
        prices = Prices(
            put=read_price(settings.price_put),
            get=read_price(settings.price_get),
            list=read_price(settings.price_list),
            delete=read_price(settings.price_delete),
        )
        gate = Gate(partial(selling.open_till, lambda: engine.store))
        routers.append(store_routes(gate, lambda: engine.store, prices))
    app = create_app(engine, routers, LARGER_BODIES)
    app.add_middleware(BeginsUnpaid)
    check_origin(engine.settings.studio_origin)
    app.mount(STUDIO_PREFIX, OnDemand(partial(_studio, engine, app.state.streams)))
    # No host is repeated: the browser goes on where it is.
    app.router.routes.append(
        Route(STUDIO_PREFIX, RedirectResponse(f"{STUDIO_PREFIX}/"), methods=["GET"])
    )
    facilitator = engine.networks.facilitator()
    if facilitator is not None:
        app.mount(FACILITATOR_PREFIX, OnDemand(partial(_facilitator, facilitator)))
    names = (engine.settings.host, *engine.settings.mcp_hosts)
    sells = selling is not None
    known = McpEndpoint(partial(_tools, sells=sells), names, principals=True)
    app.router.routes.append(Route(MCP_PATH, known))
    if sells:
        anybody = McpEndpoint(_store_tools, names, principals=False)
        app.router.routes.append(Route(MCP_STORE_PATH, anybody))
    return app


# Imported when somebody first asks: each takes a moment, and most servers are never asked.


def _studio(engine: Engine, streams: Streams) -> ASGIApp:
    from api.studio.app import studio_app

    return studio_app(engine, streams)


def _facilitator(facilitator: Facilitator) -> ASGIApp:
    from api.facilitator.app import create_facilitator_app

    return create_facilitator_app(facilitator)


def _tools(*, sells: bool) -> "Sequence[Tool]":
    from api.mcp.http_tools import HTTP_TOOLS

    return (*HTTP_TOOLS, *(_store_tools() if sells else ()))


def _store_tools() -> "Sequence[Tool]":
    from api.mcp.store_tools import STORE_TOOLS

    return STORE_TOOLS


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Keep the garbage collector away from what was there before, which is to stay.

    It would look through all of that again and again, and nobody is answered meanwhile. What a
    payment leaves behind is freed without it: tests/rest/test_garbage.py.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, *before[1:])
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
