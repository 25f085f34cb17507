"""A row of a signed payment that cannot be read keeps nobody else's payment from its end."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from structlog.testing import capture_logs

from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.ledger.payment import Payment
from engine.payments.gate import Signed
from engine.reconcile.settlements import MISSING
from engine.sessions.session import SessionView
from tests.ledger.asking import START_MS
from tests.ledger.oracle import alter, query
from tests.ledger.paying import CENT, SHOP, settle_on_chain, signed, transact
from tests.world import WORKSPACE, World

OVER_MS = 900_000
"""After so long nothing that is signed here can be used."""
OURS = "WHERE session_id = ? AND number = ?"
ODD: tuple[tuple[str, Any], ...] = (
    ("amount", ""),
    ("amount", b"\x31"),
    ("amount", "9" * 5_000),
    ("payer", "zzz"),
    ("pay_to", b"zzz"),
    ("asset", "zzz"),
    ("asset", "eip155:1/erc20:0x" + "70" * 20),
    ("nonce", "zzz"),
    ("nonce", b"zzz"),
    ("from_block", "zzz"),
    ("valid_before_s", "zzz"),
    ("valid_before_s", 0.5),
    ("tx_hash", "zzz"),
    ("tx_hash", b"zzz"),
    ("block_number", "zzz"),
    ("block_hash", 7),
    ("state", "zzz"),
    ("record_id", "zzz"),
    ("session_type", b"zzz"),
    ("label", b"zzz"),
)


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[World]:
    """Shared: leave nothing damaged."""
    opened = World(tmp_path_factory.mktemp("damage") / "data", clock)
    yield opened
    opened.engine.close()


def write(world: World, payment: Payment, **values: Any) -> None:
    """Write over columns of a payment's row, behind the engine's back."""
    changes = ", ".join(f"{name} = ?" for name in values)
    at = payment.session_id, payment.number
    assert alter(world.store, f"UPDATE settlements SET {changes} {OURS}", *values.values(), *at)


def stored(world: World, payment: Payment, column: str) -> Any:
    at = payment.session_id, payment.number
    ((value,),) = query(world.store, f"SELECT {column} FROM settlements {OURS}", *at)
    return value


def states(world: World, *found: Signed) -> list[str]:
    return [world.engine.payments.get(WORKSPACE, each.payment.id).state for each in found]


def pass_time(world: World, clock: ManualClock, by_ms: int) -> None:
    """Here, and on the chain."""
    clock.advance(by_ms)
    assert isinstance(world.engine.gateway, EmbeddedChain)
    world.engine.gateway.mine(timestamp_s=clock.now_ms // 1000)


def told(logs: Sequence[Any], event: str) -> list[Any]:
    return [each for each in logs if each["event"] == event]


@pytest.mark.parametrize(("column", "odd"), ODD)
def test_what_cannot_be_read_is_left_out_and_the_others_end(
    world: World, clock: ManualClock, column: str, odd: Any
) -> None:
    before, damaged, after = (signed(world, world.session()) for _ in range(3))
    settle_on_chain(world, after)
    was = stored(world, damaged.payment, column)
    write(world, damaged.payment, **{column: odd})
    pass_time(world, clock, OVER_MS)
    with capture_logs() as logs:
        for _ in range(3):
            world.engine.tick()
    assert states(world, before, damaged, after) == ["expired", "held", "captured"]
    assert len(told(logs, "settlement_unreadable")) == 1
    (watch,) = world.engine.networks.watches.values()
    assert (watch.fault, watch.open) == (None, 1)
    with capture_logs() as logs:
        for _ in range(2):
            world.engine.reconciler.run()
    assert len(told(logs, "settlement_unreadable")) == 1
    with pytest.raises(Unavailable, match="cannot be read"):
        world.engine.networks.accept(WORKSPACE, damaged.payment.id, by="key_1", reason="it is odd")

    write(world, damaged.payment, **{column: was})
    world.engine.tick()
    assert states(world, damaged) == ["expired"]


def test_it_starts_beside_what_cannot_be_read(world: World, clock: ManualClock) -> None:
    damaged, other = signed(world, world.session()), signed(world, world.session())
    was = {column: stored(world, damaged.payment, column) for column in ("payer", "amount")}
    pass_time(world, clock, OVER_MS)
    world.engine.close()
    write(world, damaged.payment, **dict.fromkeys(was, "zzz"))
    world.engine = world._open()
    world.engine.tick()
    assert states(world, damaged, other) == ["held", "expired"]
    write(world, damaged.payment, **was)
    world.engine.tick()
    assert states(world, damaged) == ["expired"]


@pytest.mark.parametrize("of", ["no payment", "a payment without terms"])
def test_who_is_told_of_a_payment_that_is_none_sends_the_others(
    world: World, clock: ManualClock, of: str
) -> None:
    view, usdc = world.session(), world.engine.token("USDC", None)
    assert usdc is not None
    plain, execute = world.pay(view, 1), world.engine.networks.transfers.execute
    damaged, other = (execute(view.id, SHOP, CENT, usdc, key=key) for key in "ab")
    number = plain.number if of == "a payment without terms" else damaged.number + 1_000
    world.engine.close()
    write(world, damaged, number=number)
    with capture_logs() as logs:
        world.engine = world._open()
        pay_in(world, view, 2 * CENT)
        for _ in range(3):
            world.engine.networks.transfers._due_ms.clear()
            world.engine.tick()
    assert world.engine.payments.get(WORKSPACE, other.id).state == "captured"
    about = f"pay_{view.id.removeprefix('sess_')}_{number}"
    assert [each["payment"] for each in logs if each.get("payment") == about] == [about]

    pass_time(world, clock, 5 * OVER_MS)
    with capture_logs() as logs:
        for _ in range(3):
            world.engine.tick()
    assert len(told(logs, "not_settled")) == 1, "nor does its end fill the log"
    alter(
        world.store,
        f"UPDATE settlements SET number = ? {OURS}",
        *(damaged.number, view.id, number),
    )
    world.engine.tick()
    assert world.engine.payments.get(WORKSPACE, damaged.id).state == "expired"


def pay_in(world: World, view: SessionView, amount: int) -> None:
    """The session's key has so much of the test USDC."""
    usdc = world.engine.token("USDC", None)
    assert usdc is not None
    token = usdc.asset.rpartition(":")[2]
    assert transact(world, token, "mint", to_checksum_address(view.grant.session_key), amount)


def test_what_was_found_of_it_is_not_resolved_while_it_cannot_be_read(world: World) -> None:
    damaged = signed(world, world.session())
    settle_on_chain(world, damaged)
    world.engine.tick()
    assert states(world, damaged) == ["captured"]
    was = {column: stored(world, damaged.payment, column) for column in ("payer", "block_hash")}

    def found() -> list[str]:
        world.engine.reconciler.run()
        known = world.engine.reconciler.open()
        return [each.kind for each in known if each.subject == damaged.payment.id]

    write(world, damaged.payment, block_hash=bytes(32), compared_ms=None)
    assert found() == [MISSING]
    write(world, damaged.payment, payer="zzz")
    assert found() == [MISSING]
    write(world, damaged.payment, **was)
    assert found() == []
