"""What is left of an agent key's requests, in the headers of every answer to it."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.workspaces.agent_access import Allowance

_NOTED = "tallystick.allowance"


def note(request: Request, allowance: Allowance) -> None:
    """Have the answer to this request tell of it."""
    request.scope[_NOTED].append(allowance)


class RateLimitHeaders:
    """Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset` where an allowance was noted.

    `Reset` is in seconds since the epoch: from then on one request more may be made.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        noted: list[Allowance] = []
        scope[_NOTED] = noted

        async def send_with_headers(message: Message) -> None:
            if noted and message["type"] == "http.response.start":
                allowance, headers = noted[-1], MutableHeaders(scope=message)
                headers["X-RateLimit-Limit"] = str(allowance.limit)
                headers["X-RateLimit-Remaining"] = str(allowance.remaining)
                headers["X-RateLimit-Reset"] = str(-(-allowance.frees_ms // 1_000))
            await send(message)

        await self._app(scope, receive, send_with_headers)
