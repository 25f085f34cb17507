"""How much a client may send."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.errors import error_body

BODY_BYTES_MAX = 65_536
DISCARDED_BYTES_MAX = 16 * 2**20
"""Of a body above the limit, how much is read and thrown away before the connection is cut: a
client that is still sending when its connection ends may never read why."""


class BodyLimit:
    """Refuses bodies above `BODY_BYTES_MAX` with 413, whatever their header says.

    It comes before everything else, so that no route has acted when the refusal is sent. Below the
    paths of `larger` it is so many bytes.
    """

    def __init__(self, app: ASGIApp, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        bytes_max = self._bytes_max(scope["path"])
        size, more = 0, True
        while more and size <= DISCARDED_BYTES_MAX:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= bytes_max:
                messages.append(message)
            more = message["type"] == "http.request" and message.get("more_body", False)
        if size > bytes_max:
            body = error_body("body_too_large", f"the body is above {bytes_max} bytes")
            await JSONResponse(body, 413, {"Connection": "close"})(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)

    def _bytes_max(self, path: str) -> int:
        for root, bytes_max in self._larger.items():
            if path == root or path.startswith(f"{root}/"):
                return bytes_max
        return BODY_BYTES_MAX
