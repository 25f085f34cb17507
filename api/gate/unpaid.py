"""Every request begins with nobody having paid for it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.storage.session import unpaid


class BeginsUnpaid:
    """A middleware for applications that call themselves: what a paid request asks of the same
    process, without paying, has no payer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        with unpaid():
            await self._app(scope, receive, send)
