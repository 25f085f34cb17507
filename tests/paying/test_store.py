"""The store of a server, bought by an agent of its own, and by anybody with the SDK."""

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client

from api.facilitator.app import create_facilitator_app
from api.server import AppServer
from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import EmbeddedRpc
from engine.errors import CannotStart
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from engine.selling.opening import read_selling
from engine.settings import Network, Token, load_settings
from tallystick import Client, paid
from tests.anvil_world import anvil_with_contracts
from tests.paying.shop import Agent, balance, fund, usdc
from tests.payments.paying import PAYEE
from tests.payments.paying import usdc as new_usdc
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
    with pytest.raises(CannotStart, match=f"TALLYSTICK_PAID_IN: {token}"):
        read_selling(elsewhere.model_copy(update={**to, "paid_in": token}), *asked)
    main = here.tokens[0].asset
    known = Token(symbol="USDC", asset=token, decimals=6, usd_price="1")
    with pytest.raises(CannotStart, match="TALLYSTICK_TOKENS: takes each asset once"):
        load_settings(tokens=[known, known.model_copy(update={"decimals": 8})])
    deployment = replace(engine.deployment, tokens=(known.model_copy(update={"usd_price": None}),))
    with pytest.raises(CannotStart, match=f"TALLYSTICK_PAID_IN: {token} is no token of a dollar"):
        read_selling(
            elsewhere.model_copy(update={**to, "paid_in": token}), deployment, engine.networks
        )
    for paid_in in ("", f"{main} {main}", f"{main} eip155:1"):
        with pytest.raises(CannotStart, match="TALLYSTICK_PAID_IN"):
            load_settings(paid_in=paid_in)
    assert load_settings(paid_in=f" {main}  {token} ").paid_in == f"{main} {token}"


def test_a_server_is_paid_in_tokens_of_several_networks(tmp_path: Path) -> None:
    there = EmbeddedChain(None, chain_id=84_532)
    token = new_usdc(there)
    second = {
        "symbol": "USDC",
        "asset": f"eip155:84532/erc20:{token.token}",
        "decimals": 6,
        "usd_price": "1",
    }
    claims = Claims(tmp_path / "claims.sqlite3")
    with anvil_with_contracts() as anvil, EmbeddedRpc(there, port=0) as rpc:
        relayers = [
            Relayer(anvil.gateway, anvil.stranger, claims, poll_s=0.01),
            Relayer(there, there.faucet, claims, poll_s=0.01),
        ]
        settling = create_facilitator_app(Facilitator(relayers, claims))
        wallet = Account.create()
        fund(there, there.faucet, token.token, wallet.address.lower())
        with AppServer(settling, "127.0.0.1", 0) as facilitator:
            changes = {
                **anvil.settings,
                "tokens": (*anvil.settings["tokens"], second),
                "networks": (Network(chain="eip155:84532", rpc=(rpc.url,), confirmations=0),),
                "paid_in": f"{anvil.token['asset']}  {second['asset']}",
                "pay_to": PAYEE,
                "facilitator": facilitator.url,
            }
            with Served(tmp_path / "data", **changes) as served:
                asyncio.run(buys(served, wallet, "eip155:84532"))
                unpaid = httpx.put(f"{served.url}/v1/store/a", content="1", trust_env=False)
                told = json.loads(base64.b64decode(unpaid.headers["PAYMENT-REQUIRED"]))
                assert [offer["network"] for offer in told["accepts"]] == [
                    f"eip155:{anvil.gateway.chain_id}",
                    "eip155:84532",
                ]
                assert balance(there, token.token, PAYEE) == 10_000
    there.close()


def test_a_chain_that_is_not_there_keeps_nobody_from_buying_on_another(tmp_path: Path) -> None:
    gone = {
        "symbol": "USDC",
        "asset": f"eip155:84532/erc20:0x{'12' * 20}",
        "decimals": 6,
        "usd_price": "1",
    }
    with anvil_with_contracts() as anvil:
        changes = {
            **anvil.settings,
            "tokens": ({**anvil.token, "decimals": 8}, gone),
            "networks": (Network(chain="eip155:84532", rpc=("http://127.0.0.1:1",)),),
            "paid_in": f"{gone['asset']} {anvil.token['asset']}",
            "pay_to": PAYEE,
            "facilitator": "http://127.0.0.1:1",
        }
        with Served(tmp_path / "data", **changes) as served:
            unpaid = httpx.put(f"{served.url}/v1/store/a", content="1", trust_env=False)
            assert unpaid.status_code == 402, unpaid.text
            told = json.loads(base64.b64decode(unpaid.headers["PAYMENT-REQUIRED"]))
            [offer] = told["accepts"]
            told_of = offer["network"], offer["amount"]
            assert told_of == (f"eip155:{anvil.gateway.chain_id}", "1000000"), "0.01 of 8 decimals"
        with Served(tmp_path / "other", **{**changes, "paid_in": gone["asset"]}) as served:
            refused = httpx.put(f"{served.url}/v1/store/a", content="1", trust_env=False)
            assert (refused.status_code, refused.json()["code"]) == (503, "chain_unavailable")
            assert "127.0.0.1" not in refused.text, "where it is asked is nobody's business"


async def buys(served: Served, wallet: LocalAccount, network: str) -> None:
    """Put something with the SDK, by a wallet that pays on one network."""
    client = x402Client()
    register_exact_evm_client(client, wallet, networks=network)
    client.set_spend_controls(False)
    async with x402HttpxClient(client, base_url=served.url, trust_env=False) as http:
        assert (await http.put("/v1/store/a", content="1")).json() == {"key": "a", "stored": 1}
