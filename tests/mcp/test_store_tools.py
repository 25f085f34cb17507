"""What payers store, bought inside MCP: by anybody who has a wallet, and by a session's agent."""

import asyncio
import base64
import json
from typing import Any

import httpx
import mcp_types as types
import pytest
from eth_account import Account
from fastapi import FastAPI
from pydantic import BaseModel
from x402 import PaymentRequired

from api.gate.gate import Gate
from api.gate.store import Prices, store_routes
from api.mcp.paid_tool import HOW, PAYMENT, sold_tool
from api.mcp.rest import Rest
from api.mcp.store_tools import STORE_TOOLS
from engine.selling.currency import FREE
from engine.storage.memory import MemoryStore
from engine.storage.session import Storage
from tests.mcp.buying import Buyer, in_mcp, paying
from tests.mcp.hands import Hands
from tests.mcp.make_snapshot import snapshot
from tests.paying.shop import Agent, fund, usdc
from tests.rest.served import Served


@pytest.fixture(scope="module")
def wallet(served: Served) -> Any:
    """Somebody with a hundred dollars and no session."""
    account = Account.create()
    gateway = served.world.engine.gateway
    fund(gateway, gateway.faucet, usdc(served), account.address.lower())  # type: ignore[attr-defined]
    return account


def test_whoever_pays_puts_gets_lists_and_deletes(served: Served, wallet: Any) -> None:
    signer = wallet.address[:10] + "..."
    key = "../a key/\u2603"

    async def use(buyer: Buyer) -> None:
        put = await buyer.buys("put-content", 10_000, key=key, value="remember")
        assert put == {"success": True, "key": key, "signer": signer}
        network = served.world.engine.deployment.chain
        told = {"success": True, "payer": wallet.address, "network": network, "amount": "10000"}
        assert buyer.settled == told | {"transaction": buyer.settled["transaction"]}
        replayed, _ = await buyer.again("put-content", key=key, value="remember")
        assert replayed["code"] == "payment_used"
        other, _ = await buyer.again("put-content", key=key, value="another")
        assert other["code"] == "payment_for_another_request"
        got = await buyer.buys("get-content", 1_000, key=key)
        assert got == {"success": True, "key": key, "value": "remember"}
        everything = await buyer.buys("get-content", 1_000)
        assert everything == {"success": True, "content": {key: "remember"}, "count": 1}
        for deleted in (True, False):
            gone = await buyer.buys("put-content", 10_000, key=key, value=None)
            assert gone == {"success": True, "key": key, "deleted": deleted, "signer": signer}
        absent = await buyer.buys("get-content", 1_000, key="k")
        assert absent == {"success": False, "error": 'No content found for key "k"'}

    in_mcp(f"{served.url}/mcp/store", None, paying(wallet), use)


def test_a_session_s_agent_buys_with_its_own_tool(served: Served, agent: Agent) -> None:
    async def use(buyer: Buyer) -> None:
        client = buyer.client

        async def pay(required: PaymentRequired) -> dict[str, Any]:
            asked = {
                "payment_required": required.model_dump(mode="json", by_alias=True),
                "resource": f"{served.url}/mcp",
            }
            signed = await client.call_tool("pay_x402", asked)
            assert not signed.is_error, signed.structured_content
            header = signed.structured_content["payment_signature"]
            payload: dict[str, Any] = json.loads(base64.b64decode(header))
            return payload

        buyer.pay = pay
        put = await buyer.buys("put-content", 10_000, key="k", value="v")
        assert put["signer"].lower() == agent.address[:10] + "..."

    in_mcp(f"{served.url}/mcp", agent.token, no_wallet, use)


async def no_wallet(_required: PaymentRequired) -> dict[str, Any]:
    raise AssertionError("the agent pays")


def test_who_pays_nothing_has_no_signer() -> None:
    def till() -> Any:
        raise AssertionError("nothing is sold")

    app = FastAPI()
    free = Prices(put=FREE, get=FREE, list=FREE, delete=FREE)
    app.include_router(store_routes(Gate(till), Storage(MemoryStore()), free))
    put, get = STORE_TOOLS

    async def asked() -> list[types.CallToolResult]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://store.test") as http:
            rest = Rest(http)
            return [
                await put.call(rest, {"key": "k", "value": "v"}),
                await put.call(rest, {"key": "k", "value": None}),
                await get.call(rest, {"key": "k"}),
                await get.call(rest, {}),
            ]

    for found in asyncio.run(asked()):
        refused = {"success": False, "error": "No authenticated signer in context"}
        assert (found.is_error, found.structured_content) == (False, refused)


@pytest.mark.parametrize(
    ("told", "answer"),
    [({"half": 0.5, "of": None}, {"half": 0.5, "of": None}), ([1], {"answer": [1]})],
)
def test_a_route_that_answers_any_json_is_a_tool(told: Any, answer: Any) -> None:
    class Asked(BaseModel):
        of: int | None

    app = FastAPI()

    @app.post("/tools/half")
    async def half(asked: Asked) -> Any:
        assert asked.model_fields_set == {"of"}
        return told

    tool = sold_tool("/tools/half", name="half", description="Half of it.", arguments=Asked)

    async def called() -> types.CallToolResult:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://own.test") as http:
            return await tool.call(Rest(http), {"of": None})

    found = asyncio.run(called())
    assert (found.is_error, found.structured_content) == (False, answer)
    assert tool.declared.description == "Half of it." + HOW
    assert found.model_dump_json()


@pytest.mark.parametrize(
    ("name", "arguments", "code", "field"),
    [
        ("put-content", {"key": "k"}, "missing_required_field", "value"),
        ("put-content", {"key": "k", "value": 1}, "invalid_parameter", "value"),
        ("put-content", {"key": "k", "value": "\ud800"}, "invalid_parameter", "value"),
        ("put-content", {"key": "k", "value": "é" * 131_073}, "too_large", "value"),
        ("put-content", {"key": "", "value": "v"}, "invalid_parameter", "key"),
        ("put-content", {"key": "", "value": None}, "invalid_parameter", "key"),
        ("get-content", {"key": "\udfff"}, "invalid_parameter", "key"),
        ("get-content", {"key": "k" * 1_025}, "too_large", "key"),
        ("get-content", {"key": "k", "cursor": ""}, "invalid_parameter", "cursor"),
        ("get-content", {"\ud800": "k"}, "invalid_parameter", "arguments"),
    ],
)
def test_what_is_unacceptable_is_refused_by_its_name_and_costs_nothing(
    served: Served, name: str, arguments: dict[str, Any], code: str, field: str
) -> None:
    heard = Hands(served.url, None, STORE_TOOLS).refusal(name, **arguments)
    assert (heard["code"], heard["field"]) == (code, field), heard
    assert heard["message"].startswith(f"{field}: ") or field == "arguments"


def test_anybody_is_offered_what_is_paid_for_and_nothing_else(served: Served) -> None:
    async def use(buyer: Buyer) -> None:
        listed = await buyer.client.list_tools()
        assert [
            tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools
        ] == snapshot()["store"]
        for payment in ({}, "", [], {"x402Version": 1}, "\u2603", {"x402Version": 2}):
            buyer.meta = {PAYMENT: payment}
            heard, settled = await buyer.again("put-content", key="k", value="v")
            assert heard["accepts"], heard
            assert settled is None

    in_mcp(f"{served.url}/mcp/store", None, no_wallet, use)
