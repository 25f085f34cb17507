"""`examples/x402-sessions` on a real Anvil: two payers, two tools, and nothing for nobody."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI
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
        assert {each.payer for each in paid} == {wallet.address for wallet in wallets}
        assert all(each.success for each in paid)
        local.close()


@pytest.mark.anyio
async def test_a_tool_that_nobody_paid_for_has_no_session(example: None) -> None:
    from app.tools.get_content import Key, get_content  # type: ignore[import-not-found]
    from app.tools.put_content import Entry, put_content  # type: ignore[import-not-found]

    refused = {"success": False, "error": "No authenticated signer in context"}
    assert await put_content(Entry(key="a", value="b")) == refused
    assert await get_content(Key()) == refused
