"""Who pays: one account for all spellings, and a context that leaves nobody behind."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.storage.memory import MemoryStore
from engine.storage.payer import Payer
from engine.storage.session import Storage, get_payer, get_session, unpaid
from tests.storage.stores import new_payer

CHECKSUMMED = "0x52908400098527886E0F7030069857D2E4169EE7"
CHAIN = "eip155:8453"


@pytest.fixture
def kept() -> Storage:
    """A store in memory."""
    return Storage(MemoryStore())


def test_the_account_is_lower_case_and_the_payer_as_it_was_written(kept: Storage) -> None:
    payer = Payer(CHECKSUMMED, CHAIN)
    assert payer.account == f"{CHAIN}:{CHECKSUMMED.lower()}"
    session = kept.session(payer)
    assert (session.payer, session.chain) == (CHECKSUMMED, CHAIN)


@pytest.mark.parametrize(
    "address",
    [
        CHECKSUMMED.lower(),
        CHECKSUMMED.upper(),
        "0X" + CHECKSUMMED[2:],
        "0x" + CHECKSUMMED[2:].swapcase(),
    ],
)
def test_every_spelling_is_the_same_account(address: str) -> None:
    assert Payer(address, CHAIN).account == Payer(CHECKSUMMED, CHAIN).account


@pytest.mark.parametrize(
    "address",
    [
        *("", "0x", CHECKSUMMED[2:], CHECKSUMMED[:-1], CHECKSUMMED + "0"),
        *(f" {CHECKSUMMED}", f"{CHECKSUMMED} ", f"{CHECKSUMMED}\n", f"{CHECKSUMMED}\0"),
        *("0x" + "0" * 24 + CHECKSUMMED[2:], f"{CHAIN}:{CHECKSUMMED}"),
        *(CHECKSUMMED.replace("E", "\u0415"), CHECKSUMMED.replace("0", "\uff10"), "vitalik.eth"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="payer: must be an address"):
        Payer(address, CHAIN)


@pytest.mark.parametrize(
    "chain",
    [
        "",
        "8453",
        "eip155:",
        "eip155:08453",
        "EIP155:8453",
        "eip155:8453 ",
        "base",
        "eip155:\uff18453",
    ],
)
def test_what_is_no_chain_is_refused(chain: str) -> None:
    with pytest.raises(InvalidInput, match="chain: "):
        Payer(CHECKSUMMED, chain)


def test_addresses_of_other_chains_differ_by_case() -> None:
    chain = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
    address = "7S3P4HxJpyyigGzodYwHtCxZyUQe9JiBMHyRWXArAaKv"
    assert Payer(address, chain).account == f"{chain}:{address}"
    for wrong in ("", "a" * 129, "a:b", "a b", "é", "a/b", "a{b}"):
        with pytest.raises(InvalidInput, match="payer: "):
            Payer(wrong, chain)


def test_nobody_pays_at_first() -> None:
    assert (get_session(), get_payer()) == (None, None)


def test_what_is_called_with_a_payer_has_one_and_leaves_none_behind(kept: Storage) -> None:
    def ask(*args: int, **kwargs: int) -> tuple[Any, ...]:
        return get_payer(), args, kwargs

    payer, other = new_payer(), new_payer()
    assert kept.run_with_payer(payer, ask, 1, b=2) == (payer.address, (1,), {"b": 2})
    assert get_session() is None
    with kept.paid_by(other) as session:
        assert get_session() is session
        assert kept.run_with_payer(payer, ask)[0] == payer.address
        assert get_session() is session
    assert get_session() is None


def test_what_raises_leaves_none_behind(kept: Storage) -> None:
    def fail() -> None:
        raise LookupError(get_payer())

    async def fail_later() -> None:
        await asyncio.sleep(0)
        fail()

    async def main() -> None:
        with pytest.raises(LookupError, match=payer.address):
            await kept.run_with_payer(payer, fail_later)
        assert get_session() is None

    payer = new_payer()
    with pytest.raises(LookupError, match=payer.address):
        kept.run_with_payer(payer, fail)
    assert get_session() is None
    asyncio.run(main())


def test_a_coroutine_has_its_payer_whenever_it_is_awaited(kept: Storage) -> None:
    async def ask() -> list[str | None]:
        before = get_payer()
        await asyncio.sleep(0)
        task = asyncio.create_task(later())
        thread = await asyncio.to_thread(get_payer)
        return [before, get_payer(), await task, thread]

    async def later() -> str | None:
        await asyncio.sleep(0)
        return get_payer()

    async def main() -> None:
        one, two = new_payer(), new_payer()
        waiting = kept.run_with_payer(one, ask)
        assert get_session() is None
        with kept.paid_by(two):
            assert await waiting == [one.address] * 4
            assert get_payer() == two.address
        many = [new_payer() for _ in range(20)]
        answers = await asyncio.gather(*(kept.run_with_payer(payer, ask) for payer in many))
        assert answers == [[payer.address] * 4 for payer in many]
        assert get_session() is None

    asyncio.run(main())


def test_an_unpaid_call_inside_a_paid_one_has_no_payer(kept: Storage) -> None:
    async def handler(path: str, ask: Callable[[str], Awaitable[Any]]) -> list[str | None]:
        return [get_payer(), *(await ask("free") if path == "paid" else [])]

    async def serve(path: str) -> list[str | None]:
        """A server in one function: the route `paid` is paid for, and asks the route `free`."""
        if path == "paid":
            return await kept.run_with_payer(payer, handler, path, serve)
        with unpaid():
            return await handler(path, serve)

    payer = new_payer()
    assert asyncio.run(serve("paid")) == [payer.address, None]
    assert asyncio.run(serve("free")) == [None]


def test_a_thread_of_its_own_has_no_payer(kept: Storage) -> None:
    seen: list[str | None] = []
    with kept.paid_by(new_payer()):
        thread = threading.Thread(target=lambda: seen.append(get_payer()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_what_was_stored_is_there_for_the_next_request(kept: Storage) -> None:
    async def put() -> None:
        session = get_session()
        assert session is not None
        await session.set("k", "1")

    async def get() -> str | None:
        session = get_session()
        assert session is not None
        return await session.get("k")

    async def main() -> None:
        await kept.run_with_payer(Payer(CHECKSUMMED, CHAIN), put)
        assert await kept.run_with_payer(Payer(CHECKSUMMED.lower(), CHAIN), get) == "1"
        assert await kept.run_with_payer(new_payer(), get) is None

    asyncio.run(main())
