"""One thing, sold on two networks: at one price, or at one for each; every payment by its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from x402.schemas import SettleResponse, VerifyResponse

from api.gate.gate import Gate
from api.gate.store import store_routes
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.errors import InvalidInput, Unavailable
from engine.selling.currency import Currency, Exact
from engine.selling.facilitators import OnThreads
from engine.selling.methods import PaymentMethod
from engine.selling.till import WATCHERS, Till
from engine.selling.visits import Visits
from engine.selling.witness import Witness
from engine.storage.session import get_payer
from tests.gate.stall import PUT, Stall, decoded, encoded, heard
from tests.gate.test_visits import signed
from tests.payments.paying import PAYEE, usdc
from tests.payments.paying import Till as Facility

pytestmark = pytest.mark.anyio

OTHER_PAYEE = "0x" + "9b" * 20
CHAIN_ID = 84_532


class Two:
    """A stall and, on another chain, a facility of its own; `payer` has a dollar on both."""

    def __init__(self, stall: Stall, there: Facility) -> None:
        self.stall, self.here, self.there = stall, stall.facility, there
        there.payer = self.here.payer
        there.transact(to=there.domain.token, data=there.mint(1_000_000))
        self.facilities = {facility.network: facility for facility in (self.here, there)}

    def till(self, **options: Any) -> Till:
        """Takes both."""
        methods = [
            PaymentMethod(
                Currency(
                    f"{facility.network}/erc20:{facility.domain.token}",
                    PAYEE,
                    facility.domain.name,
                    facility.domain.version,
                ),
                OnThreads(facility.facilitator),
                Witness(facility.gateway),
            )
            for facility in self.facilities.values()
        ]
        return Till(self.stall.storage, *methods, **options)

    def serve(self, gate: Gate) -> FastAPI:
        """Take the place of the stall's own application."""
        app = self.stall.app = FastAPI()
        app.include_router(store_routes(gate, lambda: self.stall.storage))
        return app

    async def offers(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """What is offered, by network."""
        response = await self.stall.ask(method, path, **how)
        assert response.status_code == 402, response.text
        told = decoded(response.headers["PAYMENT-REQUIRED"])["accepts"]
        assert len({offer["network"] for offer in told}) == len(told)
        return {offer["network"]: offer for offer in told}

    def sign(self, offer: Any, **changes: Any) -> str:
        """A payment for one of them."""
        facility = self.facilities[offer["network"]]
        authorization = facility.authorization(
            int(offer["amount"]), **{"pay_to": offer["payTo"], **changes}
        )
        request = facility.request(authorization)["paymentPayload"]
        return encoded({**request, "accepted": offer})

    def paid(self) -> tuple[int, int]:
        """How often, on either."""
        return self.here.transfers(), self.there.transfers()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EmbeddedChain]:
    """Another chain."""
    opened = EmbeddedChain(None, chain_id=CHAIN_ID)
    yield opened
    opened.close()


@pytest.fixture
async def two(stall: Stall, elsewhere: EmbeddedChain, tmp_path: Path) -> AsyncIterator[Two]:
    """Sells what is stored on both at one price."""
    there = Facility(
        gateway=elsewhere,
        bank=elsewhere.faucet,
        domain=usdc(elsewhere),
        path=tmp_path / "there.sqlite3",
    )
    # A mint is no payment.
    made = Two(stall, there)
    there._since = elsewhere.head().number + 1
    made.serve(Gate(made.till()))
    yield made
    there.facilitator.close()


async def test_whoever_has_money_on_either_buys_and_each_chain_has_a_store(two: Two) -> None:
    offers = await two.offers("PUT", "/v1/store/a", content=b"1")
    assert list(offers) == [two.here.network, two.there.network] == list(two.facilities)
    assert {offer["amount"] for offer in offers.values()} == {str(PUT)}
    for count, (network, offer) in enumerate(offers.items(), 1):
        value = network.encode()
        answer = await two.stall.ask("PUT", "/v1/store/a", two.sign(offer), content=value)
        assert answer.status_code == 200, answer.text
        assert decoded(answer.headers["PAYMENT-RESPONSE"])["network"] == network
        assert sum(two.paid()) == count
    assert two.paid() == (1, 1)
    for network, offer in (await two.offers("GET", "/v1/store/a")).items():
        answer = await two.stall.ask("GET", "/v1/store/a", two.sign(offer))
        assert answer.text == network, "what was stored by payments there"
    here = replace(two.stall.payer, chain=two.there.network)
    assert await two.stall.storage.session(here).get("a") == two.there.network


async def test_one_payment_is_for_one_network_and_once(two: Two) -> None:
    here, there = (await two.offers("PUT", "/v1/store/a", content=b"1")).values()
    nonce = b"\x07" * 32
    payments = [two.sign(offer, nonce=nonce) for offer in (here, there)]
    relabelled = encoded({**decoded(payments[0]), "accepted": there})
    answer = await two.stall.ask("PUT", "/v1/store/a", relabelled, content=b"1")
    assert heard(answer) == (402, "invalid_exact_evm_payload_signature")
    assert two.paid() == (0, 0)
    for payment in payments:
        for wanted in ((200, None), (409, "payment_used")):
            answer = await two.stall.ask("PUT", "/v1/store/a", payment, content=b"1")
            assert heard(answer) == wanted, "the same nonce is another payment on another chain"
    assert two.paid() == (1, 1)
    assert await two.stall.grants() == 2


async def test_each_network_has_its_price_and_payee(two: Two) -> None:
    gate, here, there = Gate(two.till()), two.here.network, two.there.network
    app = two.serve(gate)

    @app.get("/report")
    @gate.sells(Exact("$0.05", here), Exact("$0.04", there, pay_to="0x" + "9B" * 20))
    async def report() -> dict[str, Any]:
        return {"payer": get_payer()}

    @app.get("/there")
    @gate.sells(Exact("0.01", there))
    async def only_there() -> int:
        return 7

    @app.get("/anywhere")
    @gate.sells(Exact("0.01", pay_to=OTHER_PAYEE))
    async def anywhere() -> int:
        return 8

    offers = await two.offers("GET", "/report")
    told = {network: (offer["amount"], offer["payTo"]) for network, offer in offers.items()}
    assert told == {here: ("50000", PAYEE), there: ("40000", OTHER_PAYEE)}
    cheap = {**offers[here], "amount": "40000"}
    assert heard(await two.stall.ask("GET", "/report", two.sign(cheap))) == (
        402,
        "invalid_exact_evm_payload_authorization_value_mismatch",
    )
    usual = {**offers[there], "payTo": PAYEE}
    assert heard(await two.stall.ask("GET", "/report", two.sign(usual))) == (
        402,
        "invalid_exact_evm_payload_recipient_mismatch",
    )
    for path in ("/report", "/anywhere"):
        for offer in (await two.offers("GET", path)).values():
            assert (await two.stall.ask("GET", path, two.sign(offer))).status_code == 200
    assert two.paid() == (2, 2)
    offered = await two.offers("GET", "/there")
    assert list(offered) == [there]
    wrong = {**offers[here], "amount": "10000"}
    refused = await two.stall.ask("GET", "/there", two.sign(wrong))
    assert heard(refused) == (402, "invalid_network"), "though the till takes it elsewhere"
    assert (await two.stall.ask("GET", "/there", two.sign(offered[there]))).json() == 7
    assert two.paid() == (2, 3)


async def test_a_chain_that_is_down_holds_up_its_own_payments_only(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (await two.offers("PUT", "/v1/store/a", content=b"1")).values()

    def broken(*_asked: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(two.here.facilitator, "settle", broken)
    monkeypatch.setattr(two.here.gateway, "head", broken)
    payment = two.sign(there)
    assert heard(await two.stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == (200, None)
    monkeypatch.undo()
    monkeypatch.setattr(two.here.facilitator, "settle", broken)
    payment = two.sign(here)
    stuck = await two.stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert heard(stuck) == (503, "payment_pending")
    monkeypatch.undo()
    assert heard(await two.stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == (200, None)
    assert two.paid() == (1, 1)


async def test_who_paid_on_either_signs_in_there(two: Two) -> None:
    two.serve(Gate(two.till(visits=Visits("http://stall.test"))))
    offer = (await two.offers("PUT", "/v1/store/a", content=b"1"))[two.there.network]
    assert (await two.stall.ask("PUT", "/v1/store/a", two.sign(offer), content=b"1")).is_success
    asked = await two.stall.ask("GET", "/v1/store/a")
    told = decoded(asked.headers["PAYMENT-REQUIRED"])["extensions"]["sign-in-with-x"]
    chains = [each["chainId"] for each in told["supportedChains"]]
    assert chains == list(two.facilities)
    answers: dict[str, httpx.Response] = {}
    for chain in (*chains, "eip155:1"):
        headers = signed(two.stall, {**told["info"], "chainId": chain, "type": "eip191"})
        answers[chain] = await two.stall.ask("GET", "/v1/store/a", headers=headers)
    assert heard(answers[two.here.network]) == (402, "lease_over"), "nothing was paid there"
    assert (answers[two.there.network].status_code, answers[two.there.network].text) == (200, "1")
    assert heard(answers["eip155:1"]) == (402, "invalid_siwx_chain_id")


async def test_a_chain_that_hangs_holds_up_its_own_payments_only(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = WATCHERS + 1
    till = two.till(settlements_max=full, payer_settlements_max=2 * full)
    two.serve(Gate(till))
    here, there = (await two.offers("PUT", "/v1/store/a", content=b"1")).values()
    goes_on, hanging = threading.Event(), threading.Semaphore(0)

    def hangs(*_asked: object) -> int:
        hanging.release()
        assert goes_on.wait(60)
        raise ChainUnavailable("silent")

    monkeypatch.setattr(till.methods.of(till.methods.currencies[0]).witness, "since", hangs)
    payments = [two.sign(here) for _ in range(full + 1)]
    stuck = [
        asyncio.ensure_future(two.stall.ask("PUT", f"/v1/store/{n}", payment, content=b"1"))
        for n, payment in enumerate(payments)
    ]
    for _ in range(WATCHERS):  # every thread that asks this chain
        await asyncio.to_thread(hanging.acquire)
    answer = await two.stall.ask("PUT", "/v1/store/a", two.sign(there), content=b"1")
    assert heard(answer) == (200, None)
    goes_on.set()
    told = sorted(heard(answer) for answer in await asyncio.gather(*stuck))
    assert told == [(503, "busy")] + [(503, "chain_unavailable")] * full
    assert two.paid() == (0, 1)


async def test_a_payer_has_so_many_places_on_all_networks_together(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = two.till(payer_settlements_max=1)
    two.serve(Gate(till))
    here, there = (await two.offers("PUT", "/v1/store/a", content=b"1")).values()
    goes_on, hanging = threading.Event(), threading.Event()

    def hangs(*_asked: object) -> int:
        hanging.set()
        assert goes_on.wait(60)
        return 0

    monkeypatch.setattr(till.methods.of(till.methods.currencies[0]).witness, "since", hangs)
    first = asyncio.ensure_future(two.stall.ask("PUT", "/v1/store/a", two.sign(here), content=b"1"))
    await asyncio.to_thread(hanging.wait)
    payment = two.sign(there)
    answer = await two.stall.ask("PUT", "/v1/store/b", payment, content=b"1")
    assert heard(answer) == (503, "busy")
    goes_on.set()
    assert (await first).is_success
    assert (await two.stall.ask("PUT", "/v1/store/b", payment, content=b"1")).is_success


async def test_of_a_till_that_opens_later_no_network_is_offered_that_it_has_not(two: Two) -> None:
    gate = Gate(two.till)
    app, here = two.serve(gate), two.here.network

    @app.get("/nowhere")
    @gate.sells(Exact("0.01", "eip155:1"))
    async def nowhere() -> int:
        return 1

    @app.get("/here")
    @gate.sells(Exact("0.01", "eip155:1"), Exact("0.01", here))
    async def somewhere() -> int:
        return 2

    assert heard(await two.stall.ask("GET", "/nowhere")) == (503, "not_sold")
    offers = await two.offers("GET", "/here")
    assert list(offers) == [here]
    assert (await two.stall.ask("GET", "/here", two.sign(offers[here]))).json() == 2


async def test_all_that_come_while_a_till_is_opened_hear_of_the_same_try(two: Two) -> None:
    tries: list[int] = []
    together = threading.Event()

    def opens() -> Till:
        tries.append(1)
        together.wait(60)
        if len(tries) == 1:
            raise Unavailable("not yet", code="chain_unavailable")
        return two.till()

    gate = Gate(opens)
    two.serve(gate)
    asked = [
        asyncio.ensure_future(two.stall.ask("PUT", "/v1/store/a", content=b"1")) for _ in range(5)
    ]
    for _ in range(50):  # each comes to the gate
        await asyncio.sleep(0.002)
    together.set()
    told = {heard(answer) for answer in await asyncio.gather(*asked)}
    assert (told, len(tries)) == ({(503, "chain_unavailable")}, 1)
    assert len(await two.offers("PUT", "/v1/store/a", content=b"1")) == 2


async def test_two_tokens_of_one_chain_are_two_currencies(two: Two) -> None:
    other = usdc(two.here.gateway)  # type: ignore[arg-type]
    two.here.transact(to=other.token, data=two.here.mint(100_000_000))
    first = two.till().methods
    methods = [first.of(each) for each in first.currencies[:1]]
    eight = replace(
        methods[0].currency, asset=f"{two.here.network}/erc20:{other.token}", decimals=8
    )
    methods.append(replace(methods[0], currency=eight))
    two.serve(Gate(Till(two.stall.storage, *methods)))
    response = await two.stall.ask("PUT", "/v1/store/a", content=b"1")
    offers = decoded(response.headers["PAYMENT-REQUIRED"])["accepts"]
    amounts = [(offer["asset"], offer["amount"]) for offer in offers]
    assert amounts == [(two.here.domain.token, "10000"), (other.token, "1000000")]
    cheap = {**offers[1], "amount": "10000"}
    for told, domain, wanted in (
        (cheap, other, (402, "invalid_exact_evm_payload_authorization_value_mismatch")),
        (offers[1], two.here.domain, (402, "invalid_exact_evm_payload_signature")),
        (offers[1], other, (200, None)),
        (offers[0], two.here.domain, (200, None)),
    ):
        authorization = two.here.authorization(int(told["amount"]), pay_to=told["payTo"])
        signature = authorization.sign(domain, bytes(two.here.payer.key))
        payment = two.stall.header(authorization, told, signature)
        answer = await two.stall.ask("PUT", "/v1/store/a", payment, content=b"1")
        assert heard(answer) == wanted


async def test_who_is_paid_is_what_was_signed_whatever_a_facilitator_says(two: Two) -> None:
    class Agrees:
        """Finds everything right, and has settled it."""

        async def verify(self, *_asked: Any) -> VerifyResponse:
            return VerifyResponse(is_valid=True)

        async def settle(self, *_asked: Any) -> SettleResponse:
            network = two.here.network
            return SettleResponse(success=True, transaction="0x" + "12" * 32, network=network)

    methods = two.till().methods
    one = replace(methods.of(methods.currencies[0]), facilitator=Agrees(), witness=None)
    two.serve(Gate(Till(two.stall.storage, one)))
    [offer] = (await two.offers("PUT", "/v1/store/a", content=b"1")).values()
    answer = await two.stall.ask(
        "PUT", "/v1/store/a", two.sign(offer, pay_to=OTHER_PAYEE), content=b"1"
    )
    assert heard(answer) == (402, "invalid_exact_evm_payload_recipient_mismatch")
    assert (await two.stall.ask("PUT", "/v1/store/a", two.sign(offer), content=b"1")).is_success


async def test_what_cannot_be_offered_is_refused_when_it_is_written(two: Two) -> None:
    till = two.till()
    gate = Gate(till)
    twice = (Exact("1", two.here.network), Exact("2", two.here.network))
    half = (Exact("1"), Exact("2", two.here.network))
    for accepts in ((), ("1", "2"), ("free", Exact("1")), (Exact("1"), Exact("2")), twice, half):
        with pytest.raises(InvalidInput, match="accepts"):
            gate.sells(*accepts)
    with pytest.raises(ValueError, match="nothing is taken on eip155:1, but on"):
        gate.sells(Exact("1", "eip155:1"))
    for field, wrong in (
        ("price", {"price": "free"}),
        ("price", {"price": "-1"}),
        ("network", {"network": 8453}),
        ("pay_to", {"pay_to": 7}),
        ("network", {"network": "base"}),
        ("pay_to", {"pay_to": "0x" + "0" * 40}),
    ):
        with pytest.raises(InvalidInput) as caught:
            Exact(**{"price": "1", **wrong})  # type: ignore[arg-type]
        assert caught.value.field == field
    one = till.methods.of(till.methods.currencies[0])
    with pytest.raises(ValueError, match="each once"):
        Till(two.stall.storage, one, replace(one, witness=None))
    with pytest.raises(ValueError, match="one currency or more"):
        Till(two.stall.storage)
    with pytest.raises(ValueError, match="the witness is of"):
        replace(one, witness=Witness(two.there.gateway))
