"""`tallystick mcp` as an MCP client starts it: a process, spoken to by the SDK's own client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.cli.processes import COMMAND, called, environment, one_line
from tests.mcp.make_snapshot import snapshot
from tests.paying.shop import Agent, open_shop, usdc
from tests.rest.served import Served


@pytest.fixture(scope="module")
def shop(served: Served) -> Iterator[str]:
    """A shop that settles by our own facilitator."""
    network = served.world.engine.deployment.chain
    with open_shop(f"{served.url}/facilitator", network, usdc(served)) as url:
        yield url


def test_an_agent_buys_verifies_and_is_told_what_it_may_not(
    served: Served, agent: Agent, shop: str, tmp_path: Path
) -> None:
    rpc = served.world.engine.serve_embedded_chain()
    assert rpc is not None
    served.post("/api/v1/log/anchor")
    evidence = tmp_path / "evidence.json"
    evidence.write_bytes(served.get(f"/api/v1/ai/sessions/{agent.session.id}/evidence").content)
    registry = served.world.engine.deployment.registry
    program = StdioServerParameters(
        command=str(COMMAND),
        args=["mcp", "--rpc", rpc.url, "--registry", registry],
        env=environment(url=served.url, session_token=agent.token),
    )

    async def use() -> None:
        async with Client(program) as client:
            listed = await client.list_tools()
            assert [
                tool.model_dump(mode="json", by_alias=True, exclude_none=True)
                for tool in listed.tools
            ] == snapshot()["stdio"]
            found = await client.call_tool("verify_evidence", {"file": str(evidence)})
            assert found.structured_content["verdict"] in ("verified", "pending")
            before = agent.left()
            asked = {"url": f"{shop}/report", "max_amount": "0.01", "idempotency_key": "mcp-1"}
            bought = (await client.call_tool("pay_x402", asked)).structured_content
            assert (bought["status"], bought["body"]) == (200, '{"sold":7}')
            assert (bought["payment"]["amount_usd"], bought["truncated"]) == ("0.01", False)
            assert agent.left() == before - 10_000
            free = (await client.call_tool("pay_x402", {"url": f"{shop}/free"})).structured_content
            assert (free["body"], free["payment"]) == ('{"free":1}', None)
            dear = await client.call_tool("pay_x402", {"url": f"{shop}/dear", "max_amount": "1.99"})
            assert dear.is_error
            assert dear.structured_content["code"] == "no_usable_offer"
            for wrong, field in (
                ({"url": "ftp://shop.test"}, "url"),
                ({"url": shop, "max_amount": "a lot"}, "max_amount"),
                ({"url": shop, "max_amount": 1}, "max_amount"),
            ):
                refused = await client.call_tool("pay_x402", wrong)
                assert refused.structured_content["field"] == field
            budget = await client.call_tool("check_budget", {})
            assert budget.structured_content["session_id"] == agent.session.id
            missing = await client.call_tool("verify_evidence", {"file": str(tmp_path / "no")})
            assert missing.structured_content["message"] == "file: No such file or directory"

    try:
        asyncio.run(use())
    finally:
        rpc.stop()


def test_what_is_missing_is_said_in_one_line() -> None:
    assert "no session token" in one_line(called("mcp"), 1)
    token = {"session_token": "zai_session_" + "0" * 64}
    assert "--registry: is missing" in one_line(called("mcp", "--rpc", "http://x", **token), 2)
    assert "--rpc: is missing" in one_line(called("mcp", "--registry", "0x1", **token), 2)
    network = ("--network", "base=http://x")
    assert "--registry: is missing" in one_line(called("mcp", *network, **token), 2)
    told = ("--rpc", "http://x", "--registry", "0x" + "11" * 20)
    assert "'base' is not a chain" in one_line(called("mcp", *told, *network, **token), 2)
    heard = one_line(called("mcp", "--rpc", "http://x", "--registry", "0x1", **token), 2)
    assert "is not an address" in heard
