"""The tools as clients see them, in a file: `python -m tests.mcp.make_snapshot` writes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.mcp.http_tools import HTTP_TOOLS
from api.mcp.session_tools import SESSION_TOOLS
from api.mcp.store_tools import STORE_TOOLS
from api.mcp.tool import Tool
from tallystick.async_client import AsyncClient
from tallystick.mcp.fetching import pay_x402
from tallystick.mcp.verifying import verify_evidence

SNAPSHOT = Path(__file__).with_name("tools.json")


def stdio_tools() -> Sequence[Tool]:
    """The tools of `tallystick mcp`."""
    return (
        *SESSION_TOOLS,
        pay_x402(AsyncClient(session_token="zai_session_of_nobody")),
        verify_evidence(None),
    )


def declared(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """What `tools/list` says of tools."""
    return [
        tool.declared.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools
    ]


def snapshot() -> dict[str, list[dict[str, Any]]]:
    """Of all ways in."""
    return {
        "http": declared(HTTP_TOOLS),
        "store": declared(STORE_TOOLS),
        "stdio": declared(stdio_tools()),
    }


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(snapshot(), indent=1, ensure_ascii=False) + "\n")
