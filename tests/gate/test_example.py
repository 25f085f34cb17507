"""`examples/x402-sessions` on a real Anvil: two payers, two tools, and nothing for nobody."""

import asyncio
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.utils import decode_payment_response_header
from x402.mechanisms.evm.asset_cache import reset_asset_contract_cache
from x402.mechanisms.evm.exact import register_exact_evm_client

from engine.chain.anvil import AnvilProcess
from engine.chain.json_rpc import JsonRpcChain
from engine.storage.memory import MemoryStore
from engine.storage.session import Storage
from tests.anvil_world import ANVIL_TOML
from tests.gate.stall import offer_of
from tests.mcp.buying import Buyer, paying

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "x402-sessions"
PUT, GET = "/tools/put-content", "/tools/get-content"
ABSENT = {"success": False, "error": 'No content found for key "note"'}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It can be imported, as where it is started."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
        del sys.modules[name]


def visitor(agent: FastAPI, wallet: LocalAccount) -> httpx.AsyncClient:
    """The SDK's client."""
    client = x402Client()
    register_exact_evm_client(client, wallet)
    client.set_spend_controls(False)
    transport = x402AsyncTransport(client, httpx.ASGITransport(agent))
    return httpx.AsyncClient(transport=transport, base_url="http://agent.test")


@pytest.mark.anyio
async def test_two_payers_have_a_session_each(example: None, tmp_path: Path) -> None:
    from app.agent import create_agent  # type: ignore[import-not-found]
    from app.local import Local  # type: ignore[import-not-found]

    reset_asset_contract_cache()
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None) as anvil:
        local = Local(JsonRpcChain(anvil.url), anvil.accounts()[0], tmp_path)
        agent = create_agent(local.till(Storage(MemoryStore())))
        wallets = [local.wallet(), local.wallet()]
        nobody = httpx.AsyncClient(
            transport=httpx.ASGITransport(agent), base_url="http://agent.test"
        )
        async with nobody, visitor(agent, wallets[0]) as one, visitor(agent, wallets[1]) as other:

            async def ask(who: httpx.AsyncClient, path: str, **sent: Any) -> Any:
                answer = await who.post(path, json=sent)
                assert answer.status_code == 200, answer.text
                paid.append(decode_payment_response_header(answer.headers["PAYMENT-RESPONSE"]))
                return answer.json()

            paid: list[Any] = []
            for path, price, sent in (
                (PUT, "10000", {"key": "note", "value": "x"}),
                (GET, "1000", {"key": "note"}),
            ):
                unpaid = await nobody.post(path, json=sent)
                assert offer_of(unpaid)["amount"] == price
            stored = {"success": True, "key": "note"}
            assert await ask(one, PUT, key="note", value="mine") == stored
            assert await ask(other, GET, key="note") == ABSENT
            assert await ask(other, PUT, key="note", value="theirs") == stored
            found = await ask(one, GET, key="note")
            assert found == {"success": True, "key": "note", "value": "mine"}
            everything = {"success": True, "content": {"note": "theirs"}, "count": 1}
            assert await ask(other, GET) == everything
            deleted = {"success": True, "key": "note", "deleted": True}
            assert await ask(other, PUT, key="note", value=None) == deleted
            assert await ask(other, GET, key="note") == ABSENT
            found = await ask(one, GET, key="note")
            assert found["value"] == "mine"
        await the_same_inside_mcp(agent, wallets)
        assert {each.payer for each in paid} == {wallet.address for wallet in wallets}
        assert all(each.success for each in paid)
        local.close()


def test_what_the_readme_says_happens(
    example: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reset_asset_contract_cache()
    monkeypatch.delenv("X402_PAY_TO", raising=False)
    serving = runpy.run_path(str(EXAMPLE / "__main__.py"))["serving"]
    with serving(0) as said:
        command = said.splitlines()[-1].split()
        assert command[:2] == [sys.executable, str(EXAMPLE / "visit.py")]
        asyncio.run(runpy.run_path(command[1])["main"](*command[2:]))
    assert f"```\n{capsys.readouterr().out}```" in (EXAMPLE / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X402_PAY_TO", "0x12"),
        ("X402_NETWORK", "base"),
        ("X402_FACILITATOR_URL", "x402.org/facilitator"),
    ],
)
def test_what_the_environment_says_wrong_is_named(
    example: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from app.accepts import till_from_environment  # type: ignore[import-not-found]

    pay_to = "0x52908400098527886E0F7030069857D2E4169EE7"
    storage = Storage(MemoryStore())
    assert till_from_environment(storage, pay_to).methods.networks == ("eip155:8453",)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"^{name}: "):
        till_from_environment(storage, value if name == "X402_PAY_TO" else pay_to)


async def the_same_inside_mcp(agent: FastAPI, wallets: list[LocalAccount]) -> None:
    """One finds there what they put over HTTP; the other does not."""
    transport = httpx2.ASGITransport(agent)
    async with (
        httpx2.AsyncClient(transport=transport, trust_env=False) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http)) as client,
    ):
        one, other = (Buyer(client, paying(wallet)) for wallet in wallets)
        note = {"success": True, "key": "note"}
        assert await one.buys("get-content", 1_000, key="note") == note | {"value": "mine"}
        assert one.settled["payer"] == wallets[0].address
        assert await other.buys("get-content", 1_000, key="note") == ABSENT
        assert await other.buys("put-content", 10_000, key="note", value="new") == note
        deleted = await other.buys("put-content", 10_000, key="note", value=None)
        assert deleted == note | {"deleted": True}
        everything = {"success": True, "content": {"note": "mine"}, "count": 1}
        assert await one.buys("get-content", 1_000) == everything
        used, _ = await one.again("get-content")
        assert used["code"] == "payment_used"


@pytest.mark.anyio
async def test_a_tool_that_nobody_paid_for_has_no_session(example: None) -> None:
    from app.tools.get_content import Key, get_content  # type: ignore[import-not-found]
    from app.tools.put_content import Entry, put_content  # type: ignore[import-not-found]

    refused = {"success": False, "error": "No authenticated signer in context"}
    assert await put_content(Entry(key="a", value="b")) == refused
    assert await get_content(Key()) == refused
