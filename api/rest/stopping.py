"""Requests that a stopping server waits for no longer."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.errors import answer
from engine.errors import Unavailable


class ToldToAskAgain:
    """Answers 503 where uvicorn ends a request to stop in time; it would say 500 and no more.

    What was asked may have happened, as with every 503: the same key finds it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        begun = False

        async def heard(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, heard)
        except asyncio.CancelledError:
            if scope["type"] != "http" or begun:
                raise
            stopping = Unavailable("the server is stopping; ask again with the same key")
            await answer(stopping)(scope, receive, send)
