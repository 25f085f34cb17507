"""Streamable HTTP by the SDK, for one request at a time."""

import httpx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from api.mcp.http_tools import HTTP_TOOLS
from api.mcp.rest import Rest
from api.mcp.server import tool_server
from api.mcp.store_tools import STORE_TOOLS

_CHECKED_BEFORE = TransportSecuritySettings(enable_dns_rebinding_protection=False)


class Transport:
    """Answers MCP requests: those of `principals`, and of whoever pays if anything is sold."""

    def __init__(self, *, principals: bool, sells: bool) -> None:
        self._tools = (HTTP_TOOLS if principals else ()) + (STORE_TOOLS if sells else ())

    async def answer(
        self, http: httpx.AsyncClient, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request with tools that ask by `http`.

        The SDK's manager is made for one life of an application; here that is one request, so that
        its tasks end with it and nothing of one caller is there when the next one comes.
        """
        manager = StreamableHTTPSessionManager(
            tool_server(self._tools, Rest(http)),
            json_response=True,
            stateless=True,
            security_settings=_CHECKED_BEFORE,
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)
