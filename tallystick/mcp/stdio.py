"""The MCP server on standard input and output, for one session."""

import httpx
from mcp.server.stdio import stdio_server

from api.mcp.rest import Rest
from api.mcp.server import tool_server
from api.mcp.session_tools import SESSION_TOOLS
from tallystick.async_client import AsyncClient
from tallystick.exchange import TIMEOUT_S, authorization
from tallystick.mcp.fetching import pay_x402
from tallystick.mcp.verifying import Verifier, verify_evidence


async def serve(url: str, session_token: str, verifier: Verifier | None) -> None:
    """Serve until the input ends, with tools that ask the Tallystick server at `url`."""
    asking = httpx.AsyncClient(
        base_url=url, headers=authorization(session_token), trust_env=False, timeout=TIMEOUT_S
    )
    async with asking as http, AsyncClient(url, session_token=session_token) as client:
        tools = (*SESSION_TOOLS, pay_x402(client), verify_evidence(verifier))
        server = tool_server(tools, Rest(http))
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
