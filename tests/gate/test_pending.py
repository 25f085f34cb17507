"""A facilitator that is silent, slow or lies: unknown is not failed, and nobody is to pay again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from x402.schemas import SettleResponse, VerifyResponse

from tests.gate.stall import GET, PUT, Stall, decoded, heard
from tests.payments.paying import parsed

pytestmark = pytest.mark.anyio

PENDING = (503, "payment_pending")
AT_ONCE = 4
Settle = Callable[..., Awaitable[Any]]


class Liar:
    """Settles as it likes, until it is honest again."""

    def __init__(self, lie: Callable[[Settle, Any, Any], Awaitable[Any]]) -> None:
        self.lie: Any = lie
        self.verify: Any = None
        self._settle: Any = None

    def __call__(self, part: Any) -> Any:
        """Takes the place of the facilitator, and of nothing else."""
        if not hasattr(part, "settle"):
            return part
        self.verify, self._settle = part.verify, part.settle
        return self

    async def settle(self, payload: Any, requirements: Any) -> Any:
        if self.lie is None:
            return await self._settle(payload, requirements)
        return await self.lie(self._settle, payload, requirements)


def says(payload: Any, success: bool, **fields: Any) -> SettleResponse:
    network = payload.accepted.network
    return SettleResponse(**{"success": success, "transaction": "", "network": network, **fields})


async def breaks_before(settle: Settle, payload: Any, requirements: Any) -> Any:
    raise ConnectionError("reset")


async def breaks_after(settle: Settle, payload: Any, requirements: Any) -> Any:
    await settle(payload, requirements)
    raise TimeoutError("504")


async def waits(settle: Settle, payload: Any, requirements: Any) -> Any:
    return says(payload, False, error_reason="settlement_pending", transaction="0x" + "7a" * 32)


async def claims_success(settle: Settle, payload: Any, requirements: Any) -> Any:
    return says(payload, True, transaction="0x" + "7a" * 32)


async def claims_success_with_nothing(settle: Settle, payload: Any, requirements: Any) -> Any:
    return says(payload, True, transaction="settled, trust me")


async def names_another_payer(settle: Settle, payload: Any, requirements: Any) -> Any:
    return (await settle(payload, requirements)).model_copy(update={"payer": "0x" + "0c" * 20})


async def denies_what_it_did(settle: Settle, payload: Any, requirements: Any) -> Any:
    await settle(payload, requirements)
    return says(payload, False, error_reason="insufficient_funds")


async def refuses(settle: Settle, payload: Any, requirements: Any) -> Any:
    return says(payload, False, error_reason="insufficient_funds")


UNSETTLED = [breaks_before, waits, claims_success, claims_success_with_nothing]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.selling.witness.CONFIRMING_S", 0.05)


@pytest.mark.parametrize("lie", UNSETTLED, ids=lambda lie: lie.__name__)
async def test_what_is_unknown_stays_so_until_the_same_payment_comes_again(
    stall: Stall, lie: Any
) -> None:
    await stall.close()
    liar = Liar(lie)
    stall.open(wrap=liar)
    payment = stall.sign()
    for _ in range(2):
        answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
        assert heard(answer) == PENDING
        assert (answer.headers["Retry-After"], "PAYMENT-REQUIRED" in answer.headers) == ("1", False)
    other = await stall.ask("PUT", "/v1/store/b", payment, content=b"1")
    assert heard(other) == (409, "payment_for_another_request")
    assert stall.transfers() == 0
    liar.lie = None
    answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert heard(answer) == (200, None)
    assert stall.transfers() == 1


@pytest.mark.parametrize("lie", [breaks_after, denies_what_it_did], ids=lambda lie: lie.__name__)
async def test_what_the_chain_shows_is_paid_whatever_is_said(stall: Stall, lie: Any) -> None:
    await stall.close()
    stall.open(wrap=Liar(lie))
    answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert heard(answer) == (200, None)
    assert stall.transfers() == 1


async def test_a_transaction_that_paid_something_else_is_no_payment(stall: Stall) -> None:
    other = await stall.buy("PUT", "/v1/store/a", content=b"1")
    paid = decoded(other.headers["PAYMENT-RESPONSE"])["transaction"]

    async def names_another(settle: Settle, payload: Any, requirements: Any) -> Any:
        return says(payload, True, transaction=paid)

    await stall.close()
    stall.open(wrap=Liar(names_another))
    assert heard(await stall.buy("PUT", "/v1/store/b", content=b"2")) == PENDING
    assert stall.transfers() == 1


async def test_whose_money_it_was_is_not_for_a_facilitator_to_say(stall: Stall) -> None:
    await stall.close()
    liar = Liar(names_another_payer)
    stall.open(wrap=liar)
    payment = stall.sign()
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == PENDING
    again = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert heard(again) == (200, None), "the chain shows who paid"
    assert await stall.storage.session(stall.payer).get("a") == "1"


async def test_a_refusal_leaves_nothing_and_the_next_payment_is_taken(stall: Stall) -> None:
    await stall.close()
    liar = Liar(refuses)
    stall.open(wrap=liar)
    answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert heard(answer) == (402, "insufficient_funds")
    assert await stall.grants() == 0
    liar.lie = None
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)


async def test_somebody_else_sent_it_first_and_it_counts_as_paid(stall: Stall) -> None:
    async def overtaken(settle: Settle, payload: Any, requirements: Any) -> Any:
        told = payload.payload
        found = stall.facility.domain
        from engine.payments.authorization import read_authorization

        authorization = read_authorization(told["authorization"])
        call = authorization.settling(bytes.fromhex(told["signature"][2:]))
        stall.facility.transact(to=found.token, data=call)
        return await settle(payload, requirements)

    await stall.close()
    stall.open(wrap=Liar(overtaken))
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)
    assert stall.transfers() == 1


async def test_what_was_used_before_it_came_here_buys_nothing(stall: Stall) -> None:
    authorization = stall.facility.authorization(PUT)
    request = stall.facility.request(authorization)
    assert stall.facility.facilitator.settle(*parsed(request)).success
    answer = await stall.ask("PUT", "/v1/store/a", stall.header(authorization), content=b"1")
    assert answer.status_code == 402
    assert await stall.grants() == 0


async def test_without_a_witness_what_is_unknown_stays_unknown(stall: Stall) -> None:
    await stall.close()
    stall.open(wrap=Liar(breaks_after), witness=None)
    payment = stall.sign(units=GET)
    await stall.storage.session(stall.payer).set("a", "1")
    for _ in range(2):
        assert heard(await stall.ask("GET", "/v1/store/a", payment)) == PENDING
    assert stall.transfers() == 1


async def test_many_that_are_slow_to_settle_hold_up_nobody_else(stall: Stall) -> None:
    claiming, going_on = asyncio.Event(), asyncio.Event()
    claims, begun = list[Any](), list[Any]()

    async def is_slow(settle: Settle, payload: Any, requirements: Any) -> Any:
        begun.append(payload)
        await going_on.wait()
        return says(payload, False, error_reason="settlement_pending")

    async def believes(payload: Any, requirements: Any) -> Any:
        return VerifyResponse(is_valid=True, payer=payload.payload["authorization"]["from"])

    class SlowGrants:
        """There is time for others between a payment's verification and its settlement."""

        def __init__(self, grants: Any) -> None:
            self._grants = grants

        def __getattr__(self, name: str) -> Any:
            return getattr(self._grants, name)

        async def replace(self, *asked: Any) -> bool:
            claims.append(asked)
            await claiming.wait()
            done: bool = await self._grants.replace(*asked)
            return done

    def come(count: int) -> list[asyncio.Task[Any]]:
        payments = [stall.sign(units=PUT) for _ in range(count)]
        asked = (
            stall.ask("PUT", f"/v1/store/{each[-9:]}", each, content=b"1") for each in payments
        )
        return [asyncio.create_task(asking) for asking in asked]

    used = stall.sign(units=PUT)
    assert heard(await stall.ask("PUT", "/v1/store/a", used, content=b"1")) == (200, None)
    await stall.close()
    liar = Liar(is_slow)
    stall.open(
        wrap=lambda part: SlowGrants(part) if hasattr(part, "opening") else liar(part),
        settlements_max=AT_ONCE,
    )
    honest, liar.verify = liar.verify, believes
    first = come(AT_ONCE)
    while len(claims) < AT_ONCE:
        await asyncio.wait(first, timeout=0.01)
    told, waiting = await asyncio.wait(come(30), timeout=30)
    assert ({heard(task.result()) for task in told}, waiting) == ({(503, "busy")}, set())
    claiming.set()
    while len(begun) < AT_ONCE:
        await asyncio.wait(first, timeout=0.01)
    assert heard(await stall.ask("GET", "/v1/store/a")) == (402, "payment_required")
    answer = await stall.ask("PUT", "/v1/store/a", used, content=b"1")
    assert heard(answer) == (409, "payment_used")
    assert heard(await stall.buy("GET", "/v1/store/a")) == (503, "busy")
    assert await stall.storage.session(stall.payer).get("a") == "1"
    going_on.set()
    assert {heard(answer) for answer in await asyncio.gather(*first)} == {PENDING}
    liar.lie, liar.verify = None, honest
    assert heard(await stall.buy("GET", "/v1/store/a")) == (200, None)
    assert (await stall.storage.session(stall.payer).list()).entries == {"a": "1"}
    assert stall.transfers() == 2


async def test_more_than_so_many_at_once_are_asked_to_come_again(stall: Stall) -> None:
    await stall.close()
    stall.open(settlements_max=0)
    answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert heard(answer) == (503, "busy")
    assert (stall.transfers(), await stall.grants()) == (0, 0)
