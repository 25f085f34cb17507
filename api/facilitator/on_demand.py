"""The facilitator below another application, loaded when it is first asked for anything.

The x402 SDK takes a second to import, and most servers settle nothing.
"""

import threading

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from engine.payments.facilitator import Facilitator


class FacilitatorOnDemand:
    """An ASGI application: `create_facilitator_app`, made by the first request."""

    def __init__(self, facilitator: Facilitator) -> None:
        self._facilitator = facilitator
        self._loading = threading.Lock()
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._app
        if app is None:
            app = await to_thread.run_sync(self._load)
        await app(scope, receive, send)

    def _load(self) -> FastAPI:
        with self._loading:
            if self._app is None:
                from api.facilitator.app import create_facilitator_app

                self._app = create_facilitator_app(self._facilitator)
            return self._app
