"""Whoever signs much, and says what is not so of it, keeps nobody else's payment from its end."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock
from engine.payments import settlement_watch
from tests.ledger.asking import START_MS
from tests.ledger.paying import settle_on_chain, signed
from tests.world import WORKSPACE, World

ASKED_MAX = 3
MANY = 3 * ASKED_MAX + 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(settlement_watch, "ASKED_MAX", ASKED_MAX)
    opened = World(tmp_path / "data", clock)
    yield opened
    opened.engine.close()


def test_one_tick_asks_about_so_many_and_about_every_one_in_turn(
    world: World, clock: ManualClock
) -> None:
    engine, liar = world.engine, world.session()
    for n in range(MANY):
        lie = signed(world, liar, key=f"lie {n}")
        engine.paying.report(WORKSPACE, lie.payment.id, n.to_bytes(32)).result()
    paid, over = (signed(world, world.session()) for _ in range(2))
    (watch,), chain = engine.networks.watches.values(), engine.gateway
    assert isinstance(chain, EmbeddedChain)
    settle_on_chain(world, paid)
    with mock.patch.object(chain, "receipt", wraps=chain.receipt) as receipt:
        watch.tick()
        assert receipt.call_count == ASKED_MAX
        assert engine.payments.get(WORKSPACE, paid.payment.id).state == "captured"
        for _ in range(3):
            watch.tick()
    assert len({call.args for call in receipt.call_args_list}) == MANY

    clock.advance(900_000)
    chain.mine(timestamp_s=clock.now_ms // 1000)
    watch.tick()
    assert engine.payments.get(WORKSPACE, over.payment.id).state == "expired"
    assert watch.open == MANY + 1
    for _ in range(MANY):
        watch.tick()
    assert watch.open == 0
