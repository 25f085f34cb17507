"""`/mcp`: streamable HTTP, one POST at a time, for whoever shows a key or a token.

`/mcp/store` is the same for anybody, with tools that are paid for each time; so is that of any
application which sells:

    app.router.routes.append(Route("/mcp", McpEndpoint(lambda: tools, principals=False)))

Nothing is kept between requests, so there is no MCP session that could be stolen: each request is
its caller's by the credentials that it carries, and its tools ask the REST API with those and
nothing else. What is checked before any of it is read:

 1  Host      names this server (a page that had its own name resolve to us is refused)
 2  Origin    is there and one of ours, or is not there: no browser sent it
 3  method    is POST; there is no stream to open (GET) and no session to end (DELETE)
 4  bearer    is a key or a token that this server knows (`/mcp` only)

The specification (basic/transports, "Security Warning") wants 403 for the second; so is the first.
"""

import re
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from anyio import to_thread
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from api.rest import errors
from api.rest.auth import party_of
from engine.errors import TallystickError

if TYPE_CHECKING:
    from api.mcp.tool import Tool
    from api.mcp.transport import Transport

LOOPBACK = frozenset(("127.0.0.1", "localhost", "[::1]"))
CREDENTIALS = ("authorization", "x-session-token")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]{1,5})?")


class McpEndpoint:
    """An ASGI application.

    `tools` is called once, on a thread, when somebody first asks. `names` are hosts under which it
    may be asked, beside loopback ones. Its tools are for `principals`, who show a key or a token of
    this server with every request, or for anybody.
    """

    def __init__(
        self,
        tools: Callable[[], Sequence["Tool"]],
        names: Collection[str] = (),
        *,
        principals: bool,
    ) -> None:
        self._tools = tools
        self._principals = principals
        self._names = LOOPBACK.union(_as_in_a_url(name) for name in names)
        self._loading = threading.Lock()
        self._transport: Transport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        refusal = await self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        shown = CREDENTIALS if self._principals else ()
        credentials = {name: request.headers[name] for name in shown if name in request.headers}
        transport = self._transport
        if transport is None:
            transport = await to_thread.run_sync(self._load)
        await transport.answer(request.app, credentials, scope, receive, send)

    async def _refusal(self, request: Request) -> JSONResponse | None:
        if not self._is_ours(request.headers.getlist("host")):
            return _forbidden("host_not_allowed", "this server is not known by that Host")
        if not self._is_from_us(request.headers):
            return _forbidden("origin_not_allowed", "pages of that Origin may not ask")
        if request.method != "POST":
            body = errors.error_body("method_not_allowed", "MCP takes POST here")
            return JSONResponse(body, 405, {"Allow": "POST"})
        try:
            if self._principals:
                await party_of(request)
        except TallystickError as error:
            return errors.answer(error)
        return None

    def _is_ours(self, hosts: list[str]) -> bool:
        found = _AUTHORITY.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        return found is not None and found[1] in self._names

    def _is_from_us(self, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if not origins:
            return True
        scheme, _, authority = origins[0].partition("://")
        return len(origins) == 1 and scheme in ("http", "https") and self._is_ours([authority])

    def _load(self) -> "Transport":
        """The SDK takes a moment to import, and most servers are never asked."""
        with self._loading:
            if self._transport is None:
                from api.mcp.transport import Transport

                self._transport = Transport(self._tools())
            return self._transport


def _as_in_a_url(name: str) -> str:
    return f"[{name}]" if ":" in name and name[0] != "[" else name.lower()


def _forbidden(code: str, message: str) -> JSONResponse:
    return JSONResponse(errors.error_body(code, message), 403)
