"""Serve an application with uvicorn, in the foreground or on a thread of its own."""

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

import uvicorn
from fastapi import FastAPI
from starlette.routing import Route

from api.facilitator.on_demand import FacilitatorOnDemand
from api.mcp.endpoint import McpEndpoint
from api.rest.app import create_app
from api.rest.lean_payments import LeanPayments
from engine.engine import Engine
from engine.errors import CannotStart

GC_ALLOCATIONS = 20_000
"""So many objects more than were freed bring the garbage collector; Python's own 700 brings it
several times in one batch of requests, to find nothing."""

FACILITATOR_PREFIX = "/facilitator"
MCP_PATH = "/mcp"


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
            raise CannotStart(
                f"TALLYSTICK_PORT: cannot listen on {host}:{port}: {error}"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=http,
                ws="none",  # there are none, and an upgrade to one would be left unanswered
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=5,
            )
        )
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        with _seldom_collecting():
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


class Server(AppServer):
    """One engine behind one listening socket."""

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        """Bind at once.

        Raises:
            CannotStart: the address cannot be bound, or the facilitator's claims cannot be used.
        """
        app = create_app(engine)
        facilitator = engine.networks.facilitator()
        if facilitator is not None:
            app.mount(FACILITATOR_PREFIX, FacilitatorOnDemand(facilitator))
        app.router.routes.append(Route(MCP_PATH, McpEndpoint((host, *engine.settings.mcp_hosts))))
        super().__init__(app, host, port, http=LeanPayments)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
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
