"""The tools in the hands of one caller, over a real socket and without an MCP client around."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import mcp_types as types

from api.mcp.http_tools import HTTP_TOOLS
from api.mcp.rest import Rest
from api.mcp.tool import Tool
from engine.policy.limits import Limits
from tallystick.exchange import authorization
from tests.world import USD

LIMITS = Limits(20 * USD, 10_000 * USD, None, None, 10 * USD)


class Hands:
    """Calls tools with a token, a key or nothing; checks of every result that both forms agree."""

    def __init__(self, url: str, secret: str | None, tools: Sequence[Tool] = HTTP_TOOLS) -> None:
        self._url = url
        self._secret = secret
        self._tools = {tool.name: tool for tool in tools}

    def result(self, name: str, /, **arguments: Any) -> types.CallToolResult:
        """The result as the server gives it."""
        found = asyncio.run(self._call(name, arguments))
        [content] = found.content
        assert isinstance(content, types.TextContent)
        assert json.loads(content.text) == found.structured_content
        return found

    def answer(self, name: str, /, **arguments: Any) -> Any:
        """A good answer."""
        found = self.result(name, **arguments)
        assert not found.is_error, found.structured_content
        return found.structured_content

    def refusal(self, name: str, /, **arguments: Any) -> Any:
        """A refusal."""
        found = self.result(name, **arguments)
        assert found.is_error, found.structured_content
        return found.structured_content

    async def _call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        headers = authorization(self._secret)
        async with httpx.AsyncClient(
            base_url=self._url, headers=headers, trust_env=False, timeout=30
        ) as http:
            return await self._tools[name].call(Rest(http), arguments)
