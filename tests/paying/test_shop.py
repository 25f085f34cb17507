"""Agents buy from a server that is made with x402's own SDK, and our facilitator settles."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import requests

import tallystick
from engine.policy.limits import Limits
from tallystick import Client, paid
from tallystick.cli.fetch import _told
from tallystick.paying.order import Paid
from tests.cli.processes import Done, called, one_line
from tests.ledger.paying import CENT, SHOP
from tests.paying.shop import Agent
from tests.rest.served import Served


def test_fetch_pays_once_and_reports_it(client: Client, agent: Agent, shop: str) -> None:
    had = agent.left()
    response = client.fetch(f"{shop}/report", max_price="0.01")
    assert (response.status_code, response.json()) == (200, {"sold": 7})
    bought = paid(response)
    assert bought is not None
    assert (bought.amount_usd, bought.amount, bought.pay_to) == (0.01, str(CENT), SHOP)
    # It was our facilitator that sent it, so that is known whatever is reported.
    assert (agent.left(), bought.settlement) == (had - CENT, "pending")
    newest = agent.payments()[0]
    assert (newest["id"], newest["settlement"]["tx_hash"]) == (bought.payment_id, bought.tx_hash)
    assert (newest["terms"]["resource"], newest["terms"]["method"]) == (f"{shop}/report", "GET")


def test_what_is_free_is_not_paid(client: Client, agent: Agent, shop: str) -> None:
    before = len(agent.payments())
    assert paid(client.fetch(f"{shop}/free")) is None
    assert len(agent.payments()) == before


def test_existing_code_pays_by_another_transport(client: Client, agent: Agent, shop: str) -> None:
    before = agent.left()
    with httpx.Client(transport=tallystick.PayingTransport(client)) as http:
        response = http.post(f"{shop}/echo", content=b"twice\n")
        assert response.json() == {"heard": "twice\n"}
        assert "PAYMENT-SIGNATURE" not in response.request.headers
    wanted = hashlib.sha256(b"twice\n").hexdigest()
    assert agent.payments()[0]["terms"]["body_sha256"] == wanted
    with requests.Session() as session:
        session.mount("http://", tallystick.PayingAdapter(client))
        answer = session.post(f"{shop}/echo", data="again")
        assert answer.json() == {"heard": "again"}
        assert "PAYMENT-SIGNATURE" not in answer.request.headers
    for each in (response, answer):
        found = paid(each)
        assert found is not None
        assert found.tx_hash is not None
    assert agent.left() == before - 2 * CENT


def test_asyncio_pays_too(served: Served, agent: Agent, shop: str) -> None:
    async def buy() -> list[httpx.Response]:
        async with tallystick.AsyncClient(served.url, session_token=agent.token) as client:
            fetched = await client.fetch(f"{shop}/report")
            transport = tallystick.AsyncPayingTransport(client)
            async with httpx.AsyncClient(transport=transport) as http:
                return [fetched, await http.get(f"{shop}/report")]

    before = agent.left()
    found = [paid(response) for response in asyncio.run(buy())]
    assert [each is not None and each.tx_hash is not None for each in found] == [True, True]
    assert agent.left() == before - 2 * CENT


def test_what_the_policy_denies_is_said(served: Served, shop: str) -> None:
    session = served.session(limits={"max_per_transaction": "1", "require_approval_above": "0.5"})
    token = session["session_token"]
    with Client(served.url, session_token=token) as client:
        with pytest.raises(tallystick.PaymentDenied) as denied:
            client.fetch(f"{shop}/dear")
        with pytest.raises(tallystick.ApiError) as dear:
            client.fetch(f"{shop}/dear", max_price="1.99")
    error = denied.value
    assert (error.status, error.code, error.approval_id) == (402, "LIMIT_EXCEEDED", None)
    assert (error.rule, error.remaining["today"]) == ("per_transaction", 5000)
    assert error.idempotency_key is not None
    assert dear.value.code == "no_usable_offer"
    assert "costs $2.00, more than $1.99" in dear.value.message


def test_an_approval_lets_the_same_call_pass(served: Served, shop: str) -> None:
    agent = Agent(served, Limits(None, None, None, None, approval_above=CENT - 1))
    with Client(served.url, session_token=agent.token) as client:
        with pytest.raises(tallystick.PaymentDenied) as denied:
            client.fetch(f"{shop}/report")
        error = denied.value
        assert (error.code, agent.left()) == ("APPROVAL_REQUIRED", 10_000 * CENT)
        assert served.post(f"/api/v1/approvals/{error.approval_id}/grant").status_code == 200
        response = client.fetch(f"{shop}/report", idempotency_key=error.idempotency_key)
    assert response.json() == {"sold": 7}
    assert agent.left() == 9_999 * CENT


@pytest.fixture
def shell(served: Served, agent: Agent) -> "Shell":
    """The agent at a prompt."""
    return Shell(served, agent)


class Shell:
    """Calls `tallystick fetch` with the agent's token."""

    def __init__(self, served: Served, agent: Agent) -> None:
        self._known = {"url": served.url, "session_token": agent.token}

    def __call__(self, *arguments: str, cwd: Path | None = None) -> Done:
        return called("fetch", *arguments, cwd=cwd, **self._known)


def test_what_the_answer_does_not_call_settled_is_not_called_paid() -> None:
    bought = Paid(
        payment_id="pay_1",
        idempotency_key="key",
        resource="https://shop.test",
        amount_usd=0.01,
        amount="10000",
        network="eip155:1",
        asset="usdc",
        pay_to=SHOP,
        tx_hash="0x1",
        settlement="settled",
    )
    assert _told(bought) == f"paid $0.01 to {SHOP} on eip155:1: pay_1, 0x1"
    unsaid = replace(bought, tx_hash=None, settlement="unknown")
    assert _told(unsaid).startswith(f"signed $0.01 to {SHOP} on eip155:1: pay_1; ")


def test_the_command_prints_the_body_and_what_was_paid(
    shell: Shell, shop: str, tmp_path: Path
) -> None:
    done = shell(f"{shop}/report", "--max-price", "0.01")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sold": 7})
    assert done.stderr.startswith(f"paid $0.01 to {SHOP} on eip155:")
    done = shell(f"{shop}/echo", "-d", "a b", "-o", "out", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["status"], told["output"]) == (200, "out")
    assert told["payment"]["amount"] == str(CENT)
    assert json.loads((tmp_path / "out").read_text()) == {"heard": "a b"}
    assert one_line(shell(f"{shop}/dear", "--max-price", "1"), 1).startswith("no_usable_offer: ")
    assert one_line(shell(f"{shop}/none"), 1) == "http_error: the answer is a 404"
    for wrong in (
        ("ftp://shop.test",),
        (f"{shop}/free", "-H", "no header"),
        (f"{shop}/free", "--max-price", "-1"),
        (f"{shop}/free", "-d", "@nowhere"),
        (f"{shop}/free", "-o", "no/such/place"),
    ):
        assert one_line(shell(*wrong, cwd=tmp_path), 2)
