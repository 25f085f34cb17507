"""An endpoint that lies: what is indexed is the truth up to some block, or nothing more is."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.chain import contracts
from engine.chain.gateway import ChainChanged, ChainUnavailable
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, tick_until, wait_until
from tests.chain import rpc_proxy as lies
from tests.chain.bytecode import anchoring
from tests.chain.lied import (
    CHANGED,
    EVERY,
    HARMLESS,
    HEALED,
    STOPS,
    Lied,
    happen,
    lying_about,
    reading_through,
    sizes,
)
from tests.chain.lying_rpc import Rounds, cases
from tests.chain.rpc_proxy import RpcProxy, range_limit, result_limit
from tests.sessions.seen import events
from tests.world import WORKSPACE, World


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain on which somebody anchors."""
    with lying_about() as running:
        yield running


@pytest.fixture(scope="module")
def reading(anvil: AnvilWithContracts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lied]:
    """One for all tests: opening a database takes longer than most of them."""
    with reading_through(anvil, tmp_path_factory.mktemp("lied"), seed=1) as opened:
        yield opened


@pytest.fixture
def lied(reading: Lied) -> Lied:
    """Both begin anew, and nothing was told yet."""
    reading.begin_anew()
    return reading


@pytest.fixture(autouse=True)
def _short_chain(anvil: AnvilWithContracts) -> Iterator[None]:
    """What a test did to the chain is taken back, so that the next has little to read."""
    before = anvil.rpc("evm_snapshot")
    yield
    assert anvil.rpc("evm_revert", before)


@pytest.mark.parametrize("further", [False, True], ids=["from nothing", "further"])
@pytest.mark.parametrize("lie", HEALED, ids=lambda lie: lie.__name__)
def test_events_that_are_left_out_are_found(lied: Lied, lie: Any, further: bool) -> None:
    if further:
        lied.follower.read()
        happen(lied.anvil, 3)
    with lied.told(lie) as proxy:
        assert lied.read() is None
        assert proxy.told[lie.__name__] > 0
    lied.is_told_in_full()


@pytest.mark.parametrize("further", [False, True], ids=["from nothing", "further"])
@pytest.mark.parametrize("lie", [*STOPS, *CHANGED], ids=lambda lie: lie.__name__)
def test_a_lie_that_goes_on_stops_the_reading_and_the_truth_resumes_it(
    lied: Lied, lie: Any, further: bool
) -> None:
    if further:
        lied.follower.read()
        happen(lied.anvil, 3)
    before = lied.follower.stored()
    with lied.told(lie) as proxy:
        failure = lied.read()
        assert proxy.told[lie.__name__] > 0
    kind = ChainChanged if lie in CHANGED else (ChainUnavailable, ChainChanged)
    assert isinstance(failure, kind)
    assert lied.follower.stored() == before
    with pytest.raises(type(failure), match=(STOPS | CHANGED)[lie]):
        raise failure
    assert lied.read() is None
    lied.is_told_in_full()


@pytest.mark.parametrize("lie", HARMLESS, ids=lambda lie: lie.__name__)
def test_an_old_truth_leaves_no_gap(lied: Lied, lie: Any) -> None:
    lied.follower.read()
    happen(lied.anvil, 3)
    with lied.told(lie):
        lied.read()
        lied.has_no_gap()
    assert lied.read() is None
    lied.is_told_in_full()


@pytest.mark.parametrize("lie", EVERY, ids=lambda lie: lie.__name__)
def test_a_lie_now_and_then_only_takes_longer(
    lied: Lied, lie: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 4)
    with lied.told(lie, probability=0.05):
        assert lied.read() is None
        lied.has_no_gap()
    assert lied.read() is None
    lied.is_told_in_full()


def test_one_lie_about_the_parent_of_any_block_is_noticed(lied: Lied) -> None:
    """Of the first that is read, too, before which nothing is known."""
    for nth in range(1, 8):
        lied.begin_anew()
        with lied.proxy.lying(lies.wrong_parent, nth=nth) as proxy:
            lied.read()
            assert proxy.told["wrong_parent"] == 1
        assert lied.read() is None
        lied.is_told_in_full()


def test_all_lies_at_once_now_and_then_only_take_longer(
    lied: Lied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 4)
    every = [lie for lie in EVERY if lie is not lies.silence]
    with lied.proxy.lying(*every, probability=0.01) as proxy:
        for _ in range(5):
            lied.follower.forget()
            assert lied.read() is None
            lied.has_no_gap()
            happen(lied.anvil, 3)
        assert len(proxy.told) > 5
    assert lied.read() is None
    lied.is_told_in_full()


def test_lies_while_the_chain_is_rewritten_leave_no_gap(lied: Lied) -> None:
    """Some of the rounds of `scripts/lying-rpc`."""
    draw = random.Random(3)
    rounds = Rounds(lied, draw)
    rewritten = [case for case in cases() if case.situation == "reorganised"]
    for case in draw.sample([case for case in rewritten if lies.silence not in case.told], k=6):
        rounds.round(case)
    assert rounds.figures["rounds reorganised"] == 6
    assert rounds.figures["readings that a lie stopped"] > 0


@pytest.mark.parametrize("lie", [range_limit(1), range_limit(7), result_limit(2)])
def test_what_the_endpoint_limits_is_asked_in_parts(lied: Lied, lie: Any) -> None:
    with lied.told(lie) as proxy:
        assert lied.read() is None
        assert proxy.told[lie.__name__] > 0
    lied.is_told_in_full()


def test_one_block_that_is_refused_is_said_so(lied: Lied) -> None:
    with lied.proxy.lying(result_limit(0)):
        failure = lied.read()
    assert "refuses to answer the events of one block" in str(failure)
    assert lied.follower.stored() == ([], [])


def test_the_chain_is_asked_for_again_on_a_new_connection(lied: Lied) -> None:
    """Whoever answers there may be somebody else; not even the first answer is believed."""
    gateway = lied.follower.gateway
    number = gateway.head().number
    with lied.proxy.lying(lies.hung_up), pytest.raises(ChainUnavailable):
        gateway.block(number)
    with lied.proxy.lying(lies.wrong_chain_id), pytest.raises(ChainChanged):
        gateway.block(number)
    assert gateway.block(number) == lied.clean.gateway.block(number)


def test_ten_thousand_events_of_others_in_the_block_of_ours_hide_nothing(lied: Lied) -> None:
    with lied.anvil.idle():
        for at in range(2):
            raw = lied.anvil.sign(lied.anvil.owner, None, EMITS_5000, nonce_of(lied.anvil, at)).raw
            lied.anvil.gateway.send_raw(raw)
        data = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", next(sizes).to_bytes(32))
        lied.anvil.gateway.send_raw(
            lied.anvil.sign(lied.anvil.stranger, lied.anvil.deployed.anchors, data).raw
        )
    head = lied.anvil.gateway.head()
    assert len(lied.anvil.gateway.block_logs(head)) == 10_001
    with lied.proxy.lying(lies.empty_logs):
        assert lied.read() is None
    lied.is_told_in_full()
    assert lied.follower.stored()[0][-1][0] == head.number


def test_ten_thousand_events_of_ours_in_one_block_are_all_indexed(lied: Lied) -> None:
    anvil, count = lied.anvil, 10_000
    lied.follower.read()
    anvil.rpc("evm_setBlockGasLimit", hex(10**8))
    signed = anvil.owner.sign_transaction(
        {
            "type": 2,
            "chainId": anvil.gateway.chain_id,
            "nonce": nonce_of(anvil, 0),
            "gas": 10**8,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 1,
            "to": b"",
            "value": 0,
            "data": anchoring(anvil.deployed.anchors, count),
        }
    )
    anvil.gateway.send_raw(bytes(signed.raw_transaction))
    wait_until(lambda: anvil.gateway.receipt(bytes(signed.hash)) is not None)
    with lied.proxy.lying(lies.one_event_less):
        assert lied.read() is None
    events = lied.follower.stored()[0]
    sizes_of_block = [json.loads(row[6]).get("size") for row in events if row[3] == signed.hash]
    assert sizes_of_block == [None, *range(1, count + 1)]


def test_an_engine_behind_a_liar_does_everything_once(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    """Registrations, a revocation by the owner and anchors, while every answer may be a lie."""
    every = [lie for lie in EVERY if lie is not lies.silence]
    with RpcProxy(anvil.process.url, seed=7) as proxy:
        world = World(tmp_path / "data", **anvil.settings | {"chain": proxy.url})
        world.owner = anvil.owner
        with proxy.lying(*every, probability=0.02):
            views = [world.consent(world.create(), wait_s=0) for _ in range(3)]
            tick_until(world, lambda: {state(world, view) for view in views} == {"active"})
            data = contracts.revoking(views[0].grant, views[0].token_id)
            anvil.transact(anvil.owner, to=anvil.deployed.registry, data=data)
            tick_until(world, lambda: state(world, views[0]) == "revoked")
            tick_until(world, lambda: anchors(world))
        assert sum(proxy.told.values()) > 10
        tick_until(world, lambda: final(world))
        assert world.engine.ready()["faults"] == []
        codes = [world.pay(view, 1).decision["code"] for view in views]
        assert codes == ["SESSION_REVOKED", "ALLOWED", "ALLOWED"]
        for view in views:
            assert len(events(world.engine, "SessionRegistered", view)) == 1
        is_once_anchored(anvil, world)
        world.engine.close()


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def anchors(world: World) -> bool:
    world.engine.tick(anchor=True)
    return world.engine.lead.anchorer.latest() is not None


def final(world: World) -> bool:
    latest = world.engine.lead.anchorer.latest()
    return latest is not None and latest.state == "final"


def is_once_anchored(anvil: AnvilWithContracts, world: World) -> None:
    """Each size once, the largest being the one that the engine calls final."""
    topic = contracts.event_topic(contracts.ANCHOR_REGISTRY, "Anchored")
    logs = anvil.gateway.logs(
        from_block=0,
        to_block=anvil.gateway.head().number,
        addresses=[anvil.deployed.anchors],
        topics=[topic, world.engine.deployment.log_id],
    )
    anchored = [int.from_bytes(log.topics[2]) for log in logs]
    assert anchored == sorted(set(anchored))
    latest = world.engine.lead.anchorer.latest()
    assert latest is not None
    assert anchored[-1] == latest.size


def nonce_of(anvil: AnvilWithContracts, more: int) -> int:
    return anvil.gateway.transaction_count(anvil.owner.address.lower()) + more


# As it is created: 5000 times LOG0(0, 0).
EMITS_5000 = bytes.fromhex("6113885b5f5fa0600190038060035700")
