"""Streamable HTTP by the SDK, for one request at a time."""

from collections.abc import Mapping, Sequence

import httpx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from api.mcp.rest import Rest
from api.mcp.server import tool_server
from api.mcp.tool import Tool

_CHECKED_BEFORE = TransportSecuritySettings(enable_dns_rebinding_protection=False)


class Transport:
    """Answers MCP requests with these tools."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools

    async def answer(
        self,
        app: ASGIApp,
        credentials: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer one request with tools that ask `app` with these headers, and from its address:
        keys may be bound to one.

        The SDK's manager is made for one life of an application; here that is one request, so that
        its tasks end with it and nothing of one caller is there when the next one comes.
        """
        host, port = scope.get("client") or ("127.0.0.1", 0)
        asking = httpx.ASGITransport(app, raise_app_exceptions=False, client=(host, port))
        async with httpx.AsyncClient(
            transport=asking, base_url="http://127.0.0.1", headers=credentials, trust_env=False
        ) as http:
            manager = StreamableHTTPSessionManager(
                tool_server(self._tools, Rest(http)),
                json_response=True,
                stateless=True,
                security_settings=_CHECKED_BEFORE,
            )
            async with manager.run():
                await manager.handle_request(scope, receive, send)
