"""x402's npm packages sell to our agents, and buy where our facilitator settles."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from eth_account import Account

import tallystick
from engine.chain.gateway import ChainUnavailable
from tallystick import Client, paid
from tallystick.paying.order import Order
from tests.ledger.paying import CENT, SHOP
from tests.paying.shop import Agent, balance, fund
from tests.rest.served import Served

JAVASCRIPT = Path(__file__).parents[1] / "javascript"
NODE = Path(sys.executable).with_name("node")
PATIENCE_S = 60


@pytest.fixture(scope="module")
def npm_shop(served: Served, agent: Agent) -> Iterator[str]:
    """The URL of a Hono server whose middleware settles by our facilitator."""
    told = {
        "facilitator": f"{served.url}/facilitator",
        "network": served.world.engine.deployment.chain,
        "asset": agent.usdc,
        "payTo": SHOP,
    }
    command = [NODE, "shop.mjs", json.dumps(told)]
    with subprocess.Popen(
        command, cwd=JAVASCRIPT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), "it did not start; has scripts/setup dev installed it?"
        yield url


def settlement(agent: Agent) -> dict[str, Any]:
    """Of what the agent paid last."""
    found: dict[str, Any] = agent.payments()[0]["settlement"]
    return found


def sold(shop: str) -> dict[str, int]:
    """How often each of its handlers ran."""
    found: dict[str, int] = httpx.get(f"{shop}/sold", trust_env=False).json()
    return found


def test_a_shop_made_of_npm_packages_is_paid_once(
    client: Client, agent: Agent, npm_shop: str
) -> None:
    had = agent.left()
    response = client.fetch(f"{npm_shop}/report", max_price="0.01")
    assert response.json() == {"sold": 7, "before": 0}
    bought = paid(response)
    assert bought is not None
    assert (bought.amount, bought.pay_to, agent.left()) == (str(CENT), SHOP, had - CENT)
    # Our own facilitator sent it: that is known before anybody reports it.
    assert (bought.settlement, settlement(agent)["tx_hash"]) == ("pending", bought.tx_hash)
    agent.served.world.engine.tick()
    assert settlement(agent)["state"] == "final"


def test_what_is_answered_with_an_error_is_not_charged(
    client: Client, agent: Agent, npm_shop: str
) -> None:
    had = agent.left()
    with pytest.raises(tallystick.PaymentOutcomeUnknown, match="answered 500"):
        client.fetch(f"{npm_shop}/broken")
    assert (sold(npm_shop)["broken"], agent.left()) == (1, had)


def test_one_signature_buys_once_however_often_it_is_sent(
    client: Client, agent: Agent, npm_shop: str
) -> None:
    url, had = f"{npm_shop}/report", agent.left()
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as http:
        required = http.get(url).headers["PAYMENT-REQUIRED"]
        signed = client.buy(Order(required, url, "GET", None, "five at once"))
        header = {"PAYMENT-SIGNATURE": signed.signature}
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: http.get(url, headers=header), range(5)))
    [answer] = [answer for answer in answers if answer.status_code == 200]
    assert answer.json()["sold"] == 7
    others = [each for each in answers if each is not answer]
    assert {each.status_code for each in others} == {402}
    assert not any("sold" in each.text for each in others)
    assert agent.left() == had - CENT


def test_what_was_sent_and_is_not_mined_is_pending_and_bought_by_the_same_signature(
    client: Client, agent: Agent, npm_shop: str
) -> None:
    engine, had = agent.served.world.engine, agent.left()
    facilitator = engine.networks.facilitator()
    assert facilitator is not None
    [relayer] = facilitator._relayers.values()
    lost = ChainUnavailable("the connection was lost")
    with (
        mock.patch.object(engine.gateway, "send_raw", side_effect=lost),
        mock.patch.object(relayer, "_receipt_timeout_s", 0.0),
        pytest.raises(tallystick.PaymentOutcomeUnknown) as unknown,
    ):
        client.fetch(f"{npm_shop}/report")
    engine.tick()
    waiting = settlement(agent)
    assert (waiting["state"], waiting["tx_hash"]) == ("pending", unknown.value.tx_hash)
    assert agent.left() == had
    answer = client.fetch(f"{npm_shop}/report", idempotency_key=unknown.value.idempotency_key)
    assert answer.json()["sold"] == 7
    assert (agent.left(), settlement(agent)["tx_hash"]) == (had - CENT, waiting["tx_hash"])


def test_a_buyer_made_of_npm_packages_pays_by_our_facilitator(
    served: Served, agent: Agent, shop: str, npm_shop: str
) -> None:
    buyer, token = Account.create(), agent.usdc
    fund(agent.gateway, agent.gateway.faucet, token, buyer.address)
    had = balance(agent.gateway, token, buyer.address)
    told = {
        "urls": [f"{shop}/report", f"{npm_shop}/report", f"{served.url}/v1/store"],
        "key": f"0x{bytes(buyer.key).hex()}",
        "network": served.world.engine.deployment.chain,
        "asset": token,
    }
    done = subprocess.run(
        [NODE, "buyer.mjs"],
        cwd=JAVASCRIPT,
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    answers = json.loads(done.stdout)
    *reports, store = answers
    assert [json.loads(heard["body"])["sold"] for heard in reports] == [7, 7]
    assert json.loads(store["body"]) == {"entries": {}, "cursor": None}
    for heard in answers:
        assert (heard["status"], heard["receipt"]["success"]) == (200, True)
        tx_hash = bytes.fromhex(heard["receipt"]["transaction"][2:])
        assert agent.gateway.receipt(tx_hash).succeeded
    assert balance(agent.gateway, token, buyer.address) == had - 2 * CENT - CENT // 10
