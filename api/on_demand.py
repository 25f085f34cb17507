"""An application below another one, loaded when it is first asked for anything.

The x402 SDK takes a second to import, the Studio's pages and their templates take some moments, and
most servers are asked for neither.
"""

import threading
from collections.abc import Callable

from anyio import to_thread
from starlette.types import ASGIApp, Receive, Scope, Send


class OnDemand:
    """An ASGI application: what `make` returns, which the first request has made, on a thread."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._loading = threading.Lock()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._app
        if app is None:
            app = await to_thread.run_sync(self._load)
        await app(scope, receive, send)

    def _load(self) -> ASGIApp:
        with self._loading:
            if self._app is None:
                self._app = self._make()
            return self._app
