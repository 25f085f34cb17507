"""A chain that is not what it was: other contracts, another node, an earlier state or time."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import deploy
from engine.chain.json_rpc import JsonRpcChain
from engine.clock import ManualClock, system_clock
from engine.errors import CannotStart, Unavailable
from engine.sessions.session import SessionView
from tests.anvil_world import (
    ANVIL_TOML,
    AnvilWithContracts,
    anvil_with_contracts,
    tick_until,
)
from tests.chain.rpc_proxy import RpcProxy
from tests.sessions.seen import events
from tests.world import WORKSPACE, World

DAY_MS = 24 * 3_600_000


@pytest.fixture
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain of this test's own, since it is not one any more afterwards."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def world(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    with anvil.world(tmp_path / "data") as opened:
        yield opened


def code(world: World, view: SessionView) -> str:
    return str(world.pay(view, 1).decision["code"])


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def stops(world: World, view: SessionView, because: str) -> None:
    """Assert that the next look at the chain stops decisions, with this reason."""
    world.engine.tick()
    assert because in world.engine.ready()["faults"][0]
    with pytest.raises(Unavailable, match=because) as refusal:
        world.pay(view, 1)
    assert refusal.value.code == "chain_changed"
    assert state(world, view) == "active", "nothing was believed"


@pytest.mark.parametrize("contract", ["registry", "anchors"])
@pytest.mark.parametrize("code_there", ["0x", "0x00"], ids=["none", "another"])
def test_contracts_that_are_gone_or_others_stop_decisions(
    anvil: AnvilWithContracts, world: World, contract: str, code_there: str
) -> None:
    view = world.session(mint_pkp=True)
    address = getattr(anvil.deployed, contract)
    honest = anvil.rpc("eth_getCode", address, "latest")
    anvil.rpc("anvil_setCode", address, code_there)
    anvil.mine()
    stops(world, view, "has no code" if code_there == "0x" else "has other code than before")
    anvil.rpc("anvil_setCode", address, honest)
    anvil.mine()
    world.engine.tick()
    assert code(world, view) == "ALLOWED"


def test_contracts_that_changed_while_nobody_looked_stop_decisions(
    anvil: AnvilWithContracts, world: World
) -> None:
    view = world.session(mint_pkp=True)
    world.engine.close()
    honest = anvil.rpc("eth_getCode", anvil.deployed.registry, "latest")
    # One byte more, behind all that is ever executed: every answer of it is as before.
    anvil.rpc("anvil_setCode", anvil.deployed.registry, honest + "00")
    anvil.mine()
    world.engine = world._open()
    stops(world, view, "has other code than before")


def test_an_endpoint_that_goes_over_to_another_chain_is_not_believed(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    """Of another id, or of the same with another beginning: in the end it comes back."""
    first = JsonRpcChain(anvil.process.url)
    genesis = first.block(0)
    first.close()
    assert genesis is not None
    while (
        system_clock() < (genesis.timestamp_s + 1) * 1000
    ):  # two that begin in one second begin alike
        time.sleep(0.05)
    with (
        AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, chain_id=1) as other,
        AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, balance_ether=9) as twin,
        RpcProxy(anvil.process.url, other.url, twin.url) as proxy,
    ):
        twin_chain = JsonRpcChain(twin.url)
        same_place = deploy(twin_chain, anvil.operator)
        assert same_place.registry == anvil.deployed.registry
        assert same_place.anchors == anvil.deployed.anchors
        twin_chain.close()
        opened = World(tmp_path / "data", **anvil.settings | {"chain": proxy.url})
        opened.owner = anvil.owner
        view = opened.session(mint_pkp=True)
        for number, because in ((1, "serves chain 1, not 31337"), (2, "its first block is not")):
            proxy.switch(number)
            stops(opened, view, because)
            proxy.switch(0)
            opened.engine.tick()
            assert code(opened, view) == "ALLOWED"
        opened.engine.close()


def test_a_node_that_begins_again_with_nothing_is_another_chain(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    world = World(tmp_path / "data", **anvil.settings)
    world.owner = anvil.owner
    view = world.session(mint_pkp=True)
    anvil.process.stop()
    anvil.process.start()
    stops(world, view, "has no code")
    world.engine.close()
    with pytest.raises(CannotStart, match="belongs to another chain"):
        world._open()


def test_a_node_that_is_put_back_is_followed(anvil: AnvilWithContracts, world: World) -> None:
    """`evm_revert` below what was read: as many blocks are gone as were made since."""
    stays = world.session(mint_pkp=True)
    snapshot = anvil.rpc("evm_snapshot")
    goes = world.session(mint_pkp=True)
    anvil.mine(5)
    world.engine.tick()
    with anvil.idle():
        anvil.rpc("evm_revert", snapshot)
        world.engine.tick()
        assert code(world, goes) == "SESSION_NOT_ANCHORED"
        assert code(world, stays) == "ALLOWED"
    tick_until(world, lambda: code(world, goes) == "ALLOWED")
    assert len(events(world.engine, "SessionRegistered", goes)) == 1


def test_a_chain_a_day_ahead_ends_sessions_by_its_clock(
    anvil: AnvilWithContracts, world: World
) -> None:
    there = world.session(mint_pkp=True, duration_ms=DAY_MS)
    longer = world.session(mint_pkp=True, duration_ms=3 * DAY_MS)
    here = world.session(mint_pkp=False, duration_ms=DAY_MS)
    anvil.rpc("evm_increaseTime", DAY_MS // 1000 + 1)
    anvil.mine()
    world.engine.tick()
    assert code(world, there) == "SESSION_EXPIRED"
    assert (code(world, longer), code(world, here)) == ("ALLOWED", "ALLOWED")


def test_a_chain_a_day_behind_ends_sessions_by_ours(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    clock = ManualClock(system_clock() + DAY_MS)
    opened = World(tmp_path / "data", clock, **anvil.settings)
    opened.owner = anvil.owner
    there = opened.session(mint_pkp=True, duration_ms=3_600_000)
    assert code(opened, there) == "ALLOWED"
    head = anvil.gateway.head()
    assert head.timestamp_s * 1000 < clock() - DAY_MS // 2
    clock.advance(3_600_000 + 1000)  # it lasts to the end of a second
    anvil.mine()
    opened.engine.tick()
    assert code(opened, there) == "SESSION_EXPIRED"
    opened.engine.close()
