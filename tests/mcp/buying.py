"""Somebody who buys inside MCP, by the SDK's own client and x402's own signer."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from x402 import PaymentRequired, x402Client
from x402.mcp.types import MCPToolResult
from x402.mcp.utils import extract_payment_required_from_result
from x402.mechanisms.evm.exact import register_exact_evm_client

from api.mcp.paid_tool import PAYMENT, PAYMENT_RESPONSE

Pay = Callable[[PaymentRequired], Awaitable[dict[str, Any]]]


def paying(account: Any) -> Pay:
    """As x402's SDK pays."""
    client = x402Client()
    register_exact_evm_client(client, account)
    client.set_spend_controls(False)

    async def pay(required: PaymentRequired) -> dict[str, Any]:
        payload = await client.create_payment_payload(required)
        return payload.model_dump(mode="json", by_alias=True, exclude_none=True)

    return pay


class Buyer:
    """Calls a tool, and once more with a payment."""

    def __init__(self, client: Client, pay: Pay) -> None:
        self.client = client
        self.pay = pay
        self.meta: dict[str, Any] = {}
        """What came with the newest paid call."""
        self.settled: Any = None
        """What it was told to have paid."""

    async def buys(self, name: str, units: int, **arguments: Any) -> Any:
        """The answer, after checking what was asked for and what was settled."""
        unpaid = await self.client.call_tool(name, arguments)
        assert unpaid.is_error
        [content] = unpaid.content
        assert isinstance(content, types.TextContent)
        assert json.loads(content.text) == unpaid.structured_content
        required = extract_payment_required_from_result(as_x402_has_it(unpaid))
        assert isinstance(required, PaymentRequired)
        assert required.resource is not None
        assert required.resource.url == f"mcp://tool/{name}"
        assert [offer.amount for offer in required.accepts] == [str(units)]
        assert required.extensions is None, "a tool cannot be signed in to"
        self.meta = {PAYMENT: await self.pay(required)}
        answer, self.settled = await self.again(name, **arguments)
        assert self.settled["success"] is True
        return answer

    async def again(self, name: str, **arguments: Any) -> tuple[Any, Any]:
        """The answer to a call with the same payment, and what was settled."""
        found = await self.client.call_tool(name, arguments, meta=self.meta)
        return found.structured_content, (found.meta or {}).get(PAYMENT_RESPONSE)


def as_x402_has_it(result: types.CallToolResult) -> Any:
    """The SDK for x402 knows a result of mcp's first version."""
    return MCPToolResult(
        content=[each.model_dump() for each in result.content],
        is_error=result.is_error,
        structured_content=result.structured_content,
    )


def in_mcp(url: str, token: str | None, pay: Pay, use: Callable[[Buyer], Awaitable[None]]) -> None:
    """Connect with the SDK's own client."""

    async def connected() -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await use(Buyer(client, pay))

    asyncio.run(connected())
