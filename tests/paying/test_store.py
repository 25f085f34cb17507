"""The store of a server, bought by an agent of its own, and by anybody with the SDK."""

import asyncio

import pytest
from eth_account import Account
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client

from engine.errors import CannotStart
from engine.selling.opening import read_selling
from tallystick import Client, paid
from tests.paying.shop import Agent, fund, usdc
from tests.rest.served import Served


def test_an_agent_buys_the_store_within_its_limits(
    served: Served, agent: Agent, client: Client
) -> None:
    store = f"{served.url}/v1/store"
    had = agent.left()
    answer = client.fetch(f"{store}/notes/1", "PUT", content="remember", max_price="0.01")
    assert answer.json() == {"key": "notes/1", "stored": 1}
    bought = paid(answer)
    assert bought is not None
    assert (bought.amount_usd, bought.settlement) == (0.01, "pending")
    assert client.fetch(f"{store}/notes/1").text == "remember"
    page = client.fetch(f"{store}?prefix=notes/")
    assert page.json() == {"entries": {"notes/1": "remember"}, "cursor": None}
    assert agent.left() == had - 10_000 - 1_000 - 1_000
    newest = agent.payments()[0]
    assert newest["terms"]["resource"] == f"{store}?prefix=notes/"


def test_a_plain_wallet_buys_it_with_the_sdk(served: Served) -> None:
    wallet = Account.create()
    gateway = served.world.engine.gateway
    fund(gateway, gateway.faucet, usdc(served), wallet.address.lower())  # type: ignore[attr-defined]
    client = x402Client()
    register_exact_evm_client(client, wallet)
    client.set_spend_controls(False)

    async def main() -> None:
        async with x402HttpxClient(client, base_url=served.url, trust_env=False) as http:
            value = "v" * 262_144
            answer = await http.put("/v1/store/big", content=value)
            assert answer.status_code == 200, answer.text
            assert (await http.get("/v1/store/big")).text == value
            assert (await http.put("/v1/store/big", content=value + "v")).status_code == 413
            assert (await http.get("/v1/store/notes/1")).status_code == 404, "the agent's"

    asyncio.run(main())


def test_a_server_that_is_not_told_whom_to_pay_sells_nothing(served: Served) -> None:
    engine = served.world.engine
    elsewhere = engine.settings.model_copy(update={"chain": "http://127.0.0.1:1"})
    asked = engine.deployment, engine.networks
    assert read_selling(elsewhere, *asked) is None
    to = {"pay_to": "0x" + "9a" * 20}
    with pytest.raises(CannotStart, match="TALLYSTICK_FACILITATOR"):
        read_selling(elsewhere.model_copy(update=to), *asked)
    signing_in = {"sign_in_origin": "https://store.test/here"}
    with pytest.raises(CannotStart, match="TALLYSTICK_SIGN_IN_ORIGIN"):
        read_selling(engine.settings.model_copy(update=signing_in), *asked)
    here = read_selling(engine.settings, *asked)
    assert here is not None
    assert here.visits is None, "unless it is wanted"
    token = "eip155:1/erc20:0x" + "12" * 20
    with pytest.raises(CannotStart, match="TALLYSTICK_PAID_IN"):
        read_selling(elsewhere.model_copy(update={**to, "paid_in": token}), *asked)
