"""Transfers that fail keep neither the process that leads nor other sessions' transfers waiting."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from eth_utils.address import to_checksum_address
from structlog.testing import capture_logs

from engine.clock import ManualClock
from engine.ledger.payment import Payment
from engine.payments.transfers import ATTEMPTS_MAX, RETRY_MAX_MS, RETRY_MS
from engine.sessions.session import SessionView
from engine.settings import Token
from tests.ledger.asking import START_MS
from tests.ledger.paying import CENT, SHOP, transact
from tests.world import WORKSPACE, World


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    opened = World(tmp_path / "data", clock)
    opened.engine.networks.transfers._stopwatch = clock
    yield opened
    opened.engine.close()


def usdc(world: World) -> Token:
    found = world.engine.token("USDC", None)
    assert found is not None
    return found


def pay_in(world: World, view: SessionView) -> None:
    """The session's key has something to send."""
    payer, token = to_checksum_address(view.grant.session_key), usdc(world).asset
    assert transact(world, token.rpartition(":")[2], "mint", payer, 10 * CENT)


def asked(world: World, view: SessionView, times: int = 1) -> list[Payment]:
    execute, token = world.engine.networks.transfers.execute, usdc(world)
    return [execute(view.id, SHOP, CENT, token, key=f"transfer {n}") for n in range(times)]


def state(world: World, payment: Payment) -> str:
    return world.engine.settlements.of([payment])[payment.id].state


def attempts(world: World, **how: Any) -> Any:
    """Counts what the chain is asked to estimate."""
    gateway = world.engine.gateway
    return mock.patch.object(gateway, "estimate_gas", wraps=gateway.estimate_gas, **how)


def test_one_tick_attempts_so_many_and_every_session_in_turn(world: World) -> None:
    poor, rich = world.session(), world.session()
    failing = asked(world, poor, ATTEMPTS_MAX + 5)
    pay_in(world, rich)
    (paid,) = asked(world, rich)
    with attempts(world) as tried:
        world.engine.networks.transfers.tick()
        assert tried.call_count == ATTEMPTS_MAX
        assert state(world, paid) == "pending"
        world.engine.networks.transfers.tick()
        assert tried.call_count == len(failing) + 1, "the others' turn is next, once each"
        world.engine.networks.transfers.tick()
        assert tried.call_count == len(failing) + 1
    pay_in(world, poor)
    assert {state(world, each) for each in failing} == {"signed"}


def test_who_was_not_attempted_is_before_who_was(world: World) -> None:
    views = [world.session() for _ in range(ATTEMPTS_MAX + 3)]
    for view in views:
        asked(world, view, 2)
    tried: list[str] = []
    transfers = world.engine.networks.transfers
    with mock.patch.object(transfers, "_send", lambda row: tried.append(row.session_id)):
        for _ in range(3):
            transfers.tick()
    ids = [view.id for view in views]
    assert sorted(tried[: len(ids)]) == sorted(ids)
    assert sorted(tried) == sorted(ids * 2)


def test_a_chain_that_answers_slowly_is_asked_for_so_long_and_no_longer(
    world: World, clock: ManualClock
) -> None:
    asked(world, world.session(), 5)
    transfers, tried = world.engine.networks.transfers, []

    def slow(row: Any) -> None:
        tried.append(row.number)
        clock.advance(10_000)

    with mock.patch.object(transfers, "_send", slow):
        transfers.tick()
        assert len(tried) == 1
        transfers.tick()
    assert len(set(tried)) == 2


def test_what_is_refused_waits_longer_each_time_and_is_logged_once(
    world: World, clock: ManualClock
) -> None:
    view = world.session()
    (payment,) = asked(world, view)
    began, at_ms = clock.now_ms, []
    with capture_logs() as logs, attempts(world) as tried:
        for _ in range(200):
            before = tried.call_count
            world.engine.networks.transfers.tick()
            at_ms += [clock.now_ms - began] * (tried.call_count - before)
            clock.advance(5_000)
    waits = [after - before for before, after in pairwise(at_ms)]
    assert waits[:4] == [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS, 8 * RETRY_MS]
    assert max(waits) <= RETRY_MAX_MS
    assert [each["payment"] for each in logs if each["event"] == "transfer_not_sent"] == [
        payment.id
    ]
    pay_in(world, view)
    clock.advance(RETRY_MAX_MS)
    world.engine.tick()
    assert world.engine.payments.get(WORKSPACE, payment.id).state == "captured"


def test_what_was_sent_is_looked_after_every_half_minute(world: World, clock: ManualClock) -> None:
    view = world.session()
    pay_in(world, view)
    (payment,) = asked(world, view)
    transfers = world.engine.networks.transfers
    transfers.tick()
    assert state(world, payment) == "pending"
    with mock.patch.object(transfers, "_look_after", return_value=True) as looked:
        for _ in range(30):
            clock.advance(10_000)
            transfers.tick()
    assert looked.call_count == 10
