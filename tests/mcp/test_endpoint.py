"""`/mcp` over real HTTP: who may ask, and the SDK's own client."""

import asyncio

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.mcp.make_snapshot import snapshot
from tests.paying.shop import Agent
from tests.rest.served import Served, assert_error

ASK = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def ask(served: Served, method: str = "POST", /, **headers: str) -> httpx.Response:
    """One request with these headers, past everything that a client would see to."""
    sent = ACCEPT | {name.replace("_", "-"): value for name, value in headers.items()}
    body = ASK if method == "POST" else None
    return httpx.request(method, f"{served.url}/mcp", json=body, headers=sent, trust_env=False)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "thief.test"}, "host_not_allowed"),
        ({"Host": "thief.test:8402"}, "host_not_allowed"),
        ({"Host": "localhost.thief.test"}, "host_not_allowed"),
        ({"Host": "127.0.0.1.thief.test"}, "host_not_allowed"),
        ({"Host": "127.0.0.1:80@thief.test"}, "host_not_allowed"),
        ({"Host": "[::1"}, "host_not_allowed"),
        ({"Host": "example.com"}, "host_not_allowed"),
        ({"Origin": "https://thief.test"}, "origin_not_allowed"),
        ({"Origin": "http://localhost.thief.test"}, "origin_not_allowed"),
        ({"Origin": "http://thief.test/http://localhost"}, "origin_not_allowed"),
        ({"Origin": "null"}, "origin_not_allowed"),
        ({"Origin": "file://localhost"}, "origin_not_allowed"),
    ],
)
def test_another_host_or_origin_is_a_403_whatever_the_token(
    served: Served, agent: Agent, headers: dict[str, str], code: str
) -> None:
    heard = ask(served, Authorization=f"Bearer {agent.token}", **headers)
    assert (heard.status_code, heard.json()["code"]) == (403, code)
    assert_error(heard)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "pay.example.com"},
        {"Host": "PAY.example.com:443", "Origin": "https://pay.example.com"},
        {"Origin": "http://localhost:3000"},
        {"Host": "[::1]:1"},
    ],
)
def test_hosts_that_are_allowed_may_ask_and_so_may_their_pages(
    served: Served, headers: dict[str, str]
) -> None:
    assert ask(served, Authorization=f"Bearer {served.key}", **headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer zai_session_" + "0" * 64},
        {"Authorization": "Bearer zfi_test_" + "0" * 64},
        {"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJvdGhlciJ9.c2ln"},
        {"Mcp_Session_Id": "0" * 32},
    ],
)
def test_nobody_is_answered_on_loopback_either(served: Served, headers: dict[str, str]) -> None:
    heard = ask(served, **headers)
    assert heard.status_code == 401
    assert heard.headers["WWW-Authenticate"] == "Bearer"
    assert_error(heard)


def test_there_is_no_stream_and_no_session_to_steal(served: Served, agent: Agent) -> None:
    for method in ("GET", "DELETE", "PUT", "OPTIONS"):
        heard = ask(served, method, Authorization=f"Bearer {agent.token}")
        assert (heard.status_code, heard.headers["Allow"]) == (405, "POST")
    heard = ask(served, Authorization=f"Bearer {agent.token}", Mcp_Session_Id="a" * 32)
    assert "Mcp-Session-Id" not in heard.headers


NO_MESSAGES = (
    b"",
    b"{",
    b"[]",
    b"[1]",
    b'{"id":1}',
    b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}',
    b'{"jsonrpc":"2.0","id":1,"method":"nothing"}',
    b"\xff",
    b"[" * 10_000,
)


@pytest.mark.parametrize("raw", NO_MESSAGES)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "1999-01-01"])
def test_what_is_no_message_is_refused_and_is_no_defect(
    served: Served, agent: Agent, raw: bytes, version: str
) -> None:
    headers = ACCEPT | {
        "Authorization": f"Bearer {agent.token}",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": version,
    }
    heard = httpx.post(f"{served.url}/mcp", content=raw, headers=headers, trust_env=False)
    assert heard.status_code < 500
    if heard.status_code < 400:  # or it is taken for a notification, which nobody answers
        assert "error" in heard.json() if heard.content else heard.status_code == 202
    assert "Traceback" not in heard.text


def test_more_than_fits_is_a_413(served: Served, agent: Agent) -> None:
    headers = ACCEPT | {"Authorization": f"Bearer {agent.token}"}
    body = ASK | {"params": {"filler": "x" * 1_100_000}}
    heard = httpx.post(f"{served.url}/mcp", json=body, headers=headers, trust_env=False)
    assert heard.status_code == 413


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_client_of_the_sdk_lists_and_calls(
    served: Served, agent: Agent, other: Agent, mode: str
) -> None:
    async def use() -> None:
        bearer = {"Authorization": f"Bearer {agent.token}"}
        async with httpx2.AsyncClient(headers=bearer, trust_env=False) as http:
            transport = streamable_http_client(f"{served.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                listed = await client.list_tools()
                assert [
                    tool.model_dump(mode="json", by_alias=True, exclude_none=True)
                    for tool in listed.tools
                ] == snapshot()["http"] + snapshot()["store"]
                budget = await client.call_tool("check_budget", {})
                assert budget.structured_content["session_id"] == agent.session.id
                assert budget.structured_content["limits"]["max_per_week"] is None
                foreign = await client.call_tool("check_budget", {"session_id": other.session.id})
                assert foreign.is_error
                assert foreign.structured_content["code"] == "session_not_found"
                with pytest.raises(MCPError, match="there is no tool 'rm'"):
                    await client.call_tool("rm", {})

    asyncio.run(use())


def test_two_callers_at_once_each_hear_of_their_own(
    served: Served, agent: Agent, other: Agent
) -> None:
    async def session_of(token: str) -> str:
        call = {**ASK, "method": "tools/call", "params": {"name": "check_budget", "arguments": {}}}
        headers = ACCEPT | {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
            heard = await http.post(f"{served.url}/mcp", json=call)
        return str(heard.json()["result"]["structuredContent"]["session_id"])

    async def both() -> list[str]:
        return await asyncio.gather(*map(session_of, [agent.token, other.token] * 4))

    assert asyncio.run(both()) == [agent.session.id, other.session.id] * 4
