"""A facilitator that is silent, slow or lies: unknown is not failed, and nobody is to pay again."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from x402.schemas import SettleResponse, VerifyResponse

from engine.chain import contracts, sender
from engine.payments.authorization import read_authorization
from engine.selling.presented import read_presented
from engine.storage.limits import Limits
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


async def names_another_transaction(settle: Settle, payload: Any, requirements: Any) -> Any:
    await settle(payload, requirements)
    return says(payload, True, transaction="0x" + "7a" * 32)


async def denies_what_it_did(settle: Settle, payload: Any, requirements: Any) -> Any:
    await settle(payload, requirements)
    return says(payload, False, error_reason="insufficient_funds")


async def refuses(settle: Settle, payload: Any, requirements: Any) -> Any:
    return says(payload, False, error_reason="insufficient_funds")


async def believes(payload: Any, requirements: Any) -> Any:
    return VerifyResponse(is_valid=True, payer=payload.payload["authorization"]["from"])


async def never_answers(settle: Settle, payload: Any, requirements: Any) -> Any:
    await asyncio.Event().wait()


UNSETTLED = [breaks_before, waits, claims_success, claims_success_with_nothing, never_answers]
SETTLED = [breaks_after, denies_what_it_did, names_another_payer, names_another_transaction]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.selling.witness.CONFIRMING_S", 0.05)


@pytest.mark.parametrize("lie", UNSETTLED, ids=lambda lie: lie.__name__)
async def test_what_is_unknown_stays_so_until_the_same_payment_comes_again(
    stall: Stall, lie: Any
) -> None:
    await stall.close()
    liar = Liar(lie)
    stall.open(wrap=liar, answer_s=0.2 if lie is never_answers else 30)
    payment = stall.sign()
    for _ in range(2):
        answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
        assert heard(answer) == PENDING
        assert (answer.headers["Retry-After"], "PAYMENT-REQUIRED" in answer.headers) == ("1", False)
    other = await stall.ask("PUT", "/v1/store/b", payment, content=b"1")
    assert heard(other) == (409, "payment_for_another_request")
    assert stall.transfers() == 0
    await stall.close()
    stall.open()
    answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert heard(answer) == (200, None)
    assert stall.transfers() == 1


@pytest.mark.parametrize("lie", SETTLED, ids=lambda lie: lie.__name__)
async def test_what_the_chain_shows_is_paid_whatever_is_said(stall: Stall, lie: Any) -> None:
    await stall.close()
    stall.open(wrap=Liar(lie))
    answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert heard(answer) == (200, None)
    assert await stall.storage.session(stall.payer).get("a") == "1", "whoever it says has paid"
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


async def test_what_would_be_refused_by_now_is_not_settled_when_it_comes_again(
    stall: Stall,
) -> None:
    await stall.close()
    stall.limits, liar = Limits(payer_entries_max=1), Liar(breaks_before)
    stall.open(wrap=liar)
    authorization = stall.facility.authorization(PUT)
    payment, session = stall.header(authorization), stall.storage.session(stall.payer)
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == PENDING
    liar.lie = None
    # As after ten minutes, in which nobody came.
    await session.release(read_presented(decoded(payment), [stall.currency]).id)
    await session.set("b", "2")
    for _ in range(2):
        answer = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
        assert heard(answer) == (409, "quota_exceeded")
    assert stall.transfers() == 0
    await session.delete("b")
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == (200, None)
    assert stall.transfers() == 1


async def test_a_refusal_leaves_nothing_and_the_next_payment_is_taken(stall: Stall) -> None:
    await stall.close()
    liar = Liar(refuses)
    stall.open(wrap=liar)
    answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
    assert heard(answer) == (402, "insufficient_funds")
    assert await stall.grants() == 0
    liar.lie = None
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)


def at_once(token: str, calls: list[bytes]) -> bytes:
    """The code of a contract that makes these calls of a token while it is created."""
    code, data = b"", b"".join(calls)
    at = 44 * len(calls) + 1
    for call in calls:
        size = f"61{len(call):04x}"
        copied = f"{size}61{at:04x}600039"  # CODECOPY
        code += bytes.fromhex(f"{copied}60006000{size}6000600073{token[2:]}5af150")
        at += len(call)
    return code + b"\0" + data


@pytest.mark.parametrize("beside", ["nothing", "another payment", "a gift to the payee"])
async def test_somebody_else_sent_it_first_and_it_counts_as_paid(stall: Stall, beside: str) -> None:
    facility = stall.facility
    stranger = Account.create()

    def signed(amount: int, **changes: Any) -> bytes:
        other = facility.authorization(amount, payer=stranger.address.lower(), **changes)
        return other.settling(other.sign(facility.domain, bytes(stranger.key)))

    async def overtaken(settle: Settle, payload: Any, requirements: Any) -> Any:
        told = payload.payload
        authorization = read_authorization(told["authorization"])
        calls = [authorization.settling(bytes.fromhex(told["signature"][2:]))]
        if beside == "another payment":
            calls = [signed(0), *calls, signed(0, pay_to="0x" + "0c" * 20)]
        elif beside == "a gift to the payee":
            gift = contracts.call_data(
                contracts.TEST_USDC, "mint", to_checksum_address(authorization.pay_to), 1
            )
            calls = [gift, *calls, gift]
        code = at_once(facility.domain.token, calls)
        sent = sender.send(facility.gateway, facility.bank, to=None, data=code)
        assert sender.wait(facility.gateway, sent, poll_s=0.01).succeeded
        return await settle(payload, requirements)

    await stall.close()
    stall.open(wrap=Liar(overtaken))
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)
    assert stall.transfers() == 1


async def test_one_transfer_does_not_pay_for_two(stall: Stall) -> None:
    """Both nonces are used in one transaction, one of them for somebody else."""
    facility = stall.facility
    first, second = stall.facility.authorization(PUT), stall.facility.authorization(PUT)
    elsewhere = replace(first, pay_to="0x" + "0c" * 20)

    async def used(settle: Settle, payload: Any, requirements: Any) -> Any:
        key = bytes(facility.payer.key)
        calls = [each.settling(each.sign(facility.domain, key)) for each in (elsewhere, second)]
        code = at_once(facility.domain.token, calls)
        sent = sender.send(facility.gateway, facility.bank, to=None, data=code)
        assert sender.wait(facility.gateway, sent, poll_s=0.01).succeeded
        liar.lie = None
        return await settle(payload, requirements)

    await stall.close()
    liar = Liar(used)
    stall.open(wrap=liar)
    payments = [stall.header(each) for each in (first, second)]
    liar.verify = believes
    asked = [("PUT", f"/v1/store/{n}", payment) for n, payment in enumerate(payments)]
    answers = [await stall.ask(*each, content=b"1") for each in asked]
    assert [heard(each) for each in answers] == [(402, "payment_void"), (200, None)]
    assert stall.transfers() == 2, "one of them to somebody else"


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


async def test_a_facilitator_that_does_not_say_what_is_valid_has_taken_nothing(
    stall: Stall,
) -> None:
    async def never(payload: Any, requirements: Any) -> Any:
        await asyncio.Event().wait()

    await stall.close()
    liar = Liar(None)
    stall.open(wrap=liar, answer_s=0.2, settlements_max=1)
    honest, liar.verify = liar.verify, never
    for _ in range(2):
        answer = await stall.buy("PUT", "/v1/store/a", content=b"1")
        assert heard(answer) == (503, "facilitator_unavailable")
    liar.verify = honest
    assert (stall.transfers(), await stall.grants()) == (0, 0)


async def test_one_payer_does_not_take_every_place(stall: Stall) -> None:
    going_on = asyncio.Event()
    begun = list[Any]()

    async def is_slow(settle: Settle, payload: Any, requirements: Any) -> Any:
        begun.append(payload)
        await going_on.wait()
        return await settle(payload, requirements)

    await stall.close()
    liar = Liar(is_slow)
    stall.open(wrap=liar, settlements_max=3, payer_settlements_max=2)
    payments = [stall.sign() for _ in range(40)]
    flood = [
        asyncio.create_task(stall.ask("PUT", f"/v1/store/{n}", payment, content=b"1"))
        for n, payment in enumerate(payments)
    ]
    while len(begun) < 2 or sum(task.done() for task in flood) < 38:
        await asyncio.wait(flood, timeout=0.01)
    greedy, stall.facility.payer = stall.facility.payer, stall.facility.gas_payer
    stall.stranger()
    liar.lie = None
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)
    assert (len(begun), sum(task.done() for task in flood)) == (2, 38), "while the others settle"
    going_on.set()
    found = [heard(answer) for answer in await asyncio.gather(*flood)]
    assert sorted(found, key=str) == [(200, None)] * 2 + [(503, "busy")] * 38
    stall.facility.payer = greedy
    assert stall.transfers() == 2


async def test_who_waits_for_the_chain_keeps_nobody_elses_thread(stall: Stall) -> None:
    going_on, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, going_on.wait)
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"1")) == (200, None)
    assert not busy.done()
    going_on.set()
    await busy
