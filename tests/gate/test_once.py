"""One payment buys one thing, once: whoever sends it how often, and whatever ends in between."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from eth_keys.constants import SECPK1_N as SECP256K1_N

from engine.errors import Unavailable
from engine.selling.facilitators import OnThreads
from engine.selling.methods import PaymentMethod
from engine.selling.refusals import PaymentInProgress, PaymentUsed
from engine.selling.till import Till
from tests.gate.stall import GET, PUT, Stall, decoded, encoded, heard

pytestmark = pytest.mark.anyio

BUSY = (503, "payment_in_progress")
USED = (409, "payment_used")
ANOTHER = (409, "payment_for_another_request")


async def test_two_hundred_at_once_get_one_answer_for_one_payment(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/a", content=b"worth a tenth of a cent")
    payment = stall.sign(units=GET)
    asked = (stall.ask("GET", "/v1/store/a", payment) for _ in range(200))
    answers = await asyncio.gather(*asked)
    found = [heard(answer) for answer in answers]
    assert found.count((200, None)) == 1
    assert set(found) <= {(200, None), BUSY, USED}
    assert all("worth" not in answer.text for answer in answers if answer.status_code != 200)
    assert stall.transfers() == 2
    for _ in range(2):
        assert heard(await stall.ask("GET", "/v1/store/a", payment)) == USED
        await stall.close()
        stall.open()
    assert stall.transfers() == 2


OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/v1/store/b", {"content": b"1"}),
    ("PUT", "/v1/store/a", {"content": b"2"}),
    ("PUT", "/v1/store/a", {"content": b"1" * 1000}),
    ("PUT", "/v1/store/a?ttl_ms=5", {"content": b"1"}),
    ("PUT", "/v1/store/a", {"content": b"1", "headers": {"Idempotency-Key": "mine"}}),
    ("DELETE", "/v1/store/a", {}),
    ("POST", "/v1/store/batch/set", {"json": {"entries": {"a": "1"}}}),
]


async def test_a_payment_is_for_the_request_with_which_it_came(stall: Stall) -> None:
    payment = stall.sign(units=PUT)
    first = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert heard(first) == (200, None)
    for method, path, how in OTHERS:
        assert heard(await stall.ask(method, path, payment, **how)) == ANOTHER, (method, path)
    assert heard(await stall.ask("PUT", "/v1/store/a", payment, content=b"1")) == USED
    assert (await stall.buy("GET", "/v1/store")).json()["entries"] == {"a": "1"}
    assert stall.transfers() == 2


async def test_another_host_and_another_spelling_of_a_path_are_the_same_request(
    stall: Stall,
) -> None:
    payment = stall.sign(units=PUT)
    await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    again = await stall.ask(
        "PUT", "/v1/store/%61", payment, content=b"1", headers={"Host": "other.test"}
    )
    assert heard(again) == USED


async def test_a_nonce_that_others_saw_on_the_chain_opens_nothing(stall: Stall) -> None:
    await stall.buy("PUT", "/v1/store/a", content=b"1")
    authorization = stall.facility.authorization(amount=GET)
    payment = stall.header(authorization)
    await stall.close()
    stall.open(wrap=lambda part: Silent(part) if hasattr(part, "list") else part)
    assert heard(await stall.ask("GET", "/v1/store/a", payment)) == (503, "service_unavailable")
    assert stall.transfers() == 2, "it is paid, and not answered"
    mine, stall.facility.payer = stall.facility.payer, stall.facility.gas_payer
    forged = stall.header(authorization)
    stall.facility.payer = mine
    await stall.close()
    stall.open()
    refused = await stall.ask("GET", "/v1/store/a", forged)
    assert heard(refused) == (402, "invalid_exact_evm_payload_signature")
    for changed in (other_half(payment), stall.header(replace(authorization, valid_after_s=1))):
        refused = await stall.ask("GET", "/v1/store/a", changed)
        assert heard(refused) == (402, "invalid_payload")
    assert (await stall.ask("GET", "/v1/store/a", payment)).text == "1"
    assert heard(await stall.ask("GET", "/v1/store/a", payment)) == USED
    assert stall.transfers() == 2


async def test_a_payment_is_for_one_at_a_time_and_the_next_goes_on_from_there(
    stall: Stall,
) -> None:
    payment = decoded(stall.sign(units=GET))
    first = await stall.till.open(payment, GET, "a request")
    with pytest.raises(PaymentInProgress):
        await stall.till.open(payment, GET, "a request")
    await first.left()
    second = await stall.till.open(payment, GET, "a request")
    assert (second.transaction, stall.transfers()) == (first.transaction, 1)


async def test_who_verifies_too_late_hears_what_became_of_it(stall: Stall) -> None:
    payment, first = decoded(stall.sign(units=GET)), stall.till

    class Late:
        """Of another process: verifies after the first has answered."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def verify(self, *asked: Any) -> Any:
            sale = await first.open(payment, GET, "a request")
            await sale.used()
            found = await self._inner.verify(*asked)
            assert not found.is_valid
            return found

    settler: Any = Late(OnThreads(stall.facility.facilitator))
    second = Till(stall.storage, PaymentMethod(stall.currency, settler))
    with pytest.raises(PaymentUsed):
        await second.open(payment, GET, "a request")


async def test_whoever_takes_too_long_answers_nothing_that_another_answers(stall: Stall) -> None:
    await stall.close()
    stall.open(lease_ms=0)
    payment = decoded(stall.sign(units=GET))
    slow = await stall.till.open(payment, GET, "a request")
    fast = await stall.till.open(payment, GET, "a request")
    await fast.hold()
    await fast.used()
    with pytest.raises(PaymentInProgress):
        await slow.hold()
    await slow.used()
    with pytest.raises(PaymentUsed):
        await stall.till.open(payment, GET, "a request")
    assert stall.transfers() == 1


def other_half(payment: str) -> str:
    """The same payment with the other signature that recovers to its signer (SEC 1, 4.1.6)."""
    told = decoded(payment)
    signature = bytes.fromhex(told["payload"]["signature"][2:])
    s = SECP256K1_N - int.from_bytes(signature[32:64])
    other = signature[:32] + s.to_bytes(32) + bytes([27 + 28 - signature[64]])
    told["payload"]["signature"] = f"0x{other.hex()}"
    return encoded(told)


class Silent:
    """A store that cannot be read."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "get":
            raise Unavailable("the disk is away")
        return getattr(self._store, name)
