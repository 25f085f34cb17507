"""An endpoint that lies: what is indexed is the truth up to some block, or nothing more is."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.chain import contracts
from engine.chain.gateway import ChainChanged, ChainUnavailable
from engine.chain.json_rpc import JsonRpcChain
from engine.errors import Unavailable
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until, wait_until
from tests.chain import rpc_proxy as lies
from tests.chain.bytecode import anchoring
from tests.chain.following import Follower, Indexed, sources_at
from tests.chain.rpc_proxy import RpcProxy, range_limit, result_limit
from tests.sessions.seen import events
from tests.world import WORKSPACE, World

PATIENCE_S = 30.0
HASTE_S = 0.2
"""How long an answer is waited for where none comes."""
ENOUGH_BYTES = 1 << 22
"""Of an answer without an end, so much is read here: the bound is lower, so that less is sent."""
TICKS_MAX = 400
SALT = b"\x01" * 32

sizes = itertools.count(1)


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain on which somebody anchors."""
    with anvil_with_contracts() as running:
        data = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", SALT)
        running.transact(running.stranger, to=running.deployed.anchors, data=data)
        happen(running)
        yield running


def happen(anvil: AnvilWithContracts, blocks: int = 12) -> None:
    """More blocks: two events in one, none in some, one in others."""
    log_id = contracts.log_id_of(anvil.stranger.address, SALT)

    def anchor() -> None:
        data = contracts.call_data(
            contracts.ANCHOR_REGISTRY, "anchor", log_id, next(sizes), b"\x02" * 32
        )
        anvil.transact(anvil.stranger, to=anvil.deployed.anchors, data=data)

    for number in range(blocks):
        anvil.mine() if number % 3 else anchor()
    with anvil.idle():
        for _ in range(2):
            data = contracts.call_data(
                contracts.ANCHOR_REGISTRY, "openLog", next(sizes).to_bytes(32)
            )
            nonce = anvil.gateway.transaction_count(anvil.stranger.address.lower(), pending=True)
            signed = anvil.sign(anvil.stranger, anvil.deployed.anchors, data, nonce)
            anvil.gateway.send_raw(signed.raw)


@dataclass
class Lied:
    """Somebody who reads through the proxy, and somebody who does not."""

    anvil: AnvilWithContracts
    proxy: RpcProxy
    follower: Follower
    clean: Follower

    def read(self) -> Exception | None:
        """Tick until all is read; an endpoint that fails is asked again. The last failure, if it
        never was read.
        """
        failure: Exception | None = None
        for _ in range(TICKS_MAX if self._may_come_round() else 2):
            try:
                self.follower.read()
            except Unavailable as error:
                failure = error
                self.has_no_gap()
            else:
                return None
        return failure

    @contextmanager
    def told(self, lie: Any, *, probability: float = 1.0) -> Iterator[RpcProxy]:
        """Lie. What never comes is not waited for long, and what never ends not read to its end."""
        http = self.follower.gateway._endpoint._http  # type: ignore[attr-defined]
        if lie is lies.silence:
            http.timeout = HASTE_S
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("engine.chain.json_rpc_endpoint.ANSWER_MAX_BYTES", ENOUGH_BYTES)
            try:
                with self.proxy.lying(lie, probability=probability) as proxy:
                    yield proxy
            finally:
                http.timeout = PATIENCE_S

    def _may_come_round(self) -> bool:
        return all(plan.probability < 1 for plan in self.proxy._plans)

    def has_no_gap(self) -> None:
        """What is stored is what a clean reading has up to the same block."""
        events, blocks = self.follower.stored()
        tip = blocks[-1][0] if blocks else -1
        clean_events, clean_blocks = self.truth()
        assert events == [event for event in clean_events if event[0] <= tip]
        assert [row for row in blocks if row[0] >= clean_blocks[0][0]] == [
            row for row in clean_blocks if row[0] <= tip
        ]

    def truth(self) -> Indexed:
        """What is there."""
        return self.clean.read()

    def is_told_in_full(self) -> None:
        """Assert that everything is stored."""
        assert self.follower.stored() == self.truth()


@pytest.fixture(scope="module")
def reading(anvil: AnvilWithContracts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lied]:
    """One for all tests: opening a database takes longer than most of them."""
    gateway, directory = anvil.gateway, tmp_path_factory.mktemp("lied")
    genesis = gateway.block(0)
    assert genesis is not None
    known: dict[str, Any] = {
        "sources": sources_at(gateway, anvil.deployed.registry, anvil.deployed.anchors),
        "genesis_hash": genesis.hash,
        "start_block": anvil.deployed.block_number,
    }
    with RpcProxy(anvil.process.url, seed=1) as proxy:
        through = JsonRpcChain(proxy.url, timeout_s=PATIENCE_S, expected_chain_id=gateway.chain_id)
        follower = Follower(directory / "lied.sqlite3", through, **known)
        clean = Follower(directory / "clean.sqlite3", gateway, **known)
        yield Lied(anvil, proxy, follower, clean)
        follower.close()
        clean.close()
        through.close()


@pytest.fixture
def lied(reading: Lied) -> Lied:
    """Both begin anew, and nothing was told yet."""
    reading.follower.forget()
    reading.clean.forget()
    reading.proxy.told.clear()
    return reading


@pytest.fixture(autouse=True)
def _short_chain(anvil: AnvilWithContracts) -> Iterator[None]:
    """What a test did to the chain is taken back, so that the next has little to read."""
    before = anvil.rpc("evm_snapshot")
    yield
    assert anvil.rpc("evm_revert", before)


# What shows itself in other answers is healed by them.
HEALED = (lies.empty_logs, lies.empty_ranges, lies.one_event_less)
# What cannot be told apart from the truth, or not be healed, stops the reading.
STOPS: dict[Callable[..., Any], str] = {
    lies.no_events: "makes up the block's bloom",
    lies.removed_logs: "a removed log",
    lies.wrong_parent: "does not follow",
    lies.wrong_hash: "does not follow|another chain|of another block",
    lies.no_bloom: "makes up the block's bloom",
    lies.no_block: "something other than an object",
    lies.head_above: "disappeared|something other",
    lies.too_many_requests: "request count exceeded",
    lies.busy: "429",
    lies.overloaded: "503",
    lies.silence: "timed out",
    lies.truncated: "peer closed connection",
    lies.cut_json: "not a JSON answer",
    lies.huge: "answer above",
    lies.hung_up: "disconnected",
}
CHANGED = {lies.wrong_chain_id: "serves chain 1", lies.no_code: "has no code"}
HARMLESS = (lies.stale_head, lies.no_receipt)
"""Nobody is deceived: the one is an old truth, the other is not asked for by who reads."""


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


@pytest.mark.parametrize(
    "lie", [*HEALED, *STOPS, *CHANGED, *HARMLESS], ids=lambda lie: lie.__name__
)
def test_a_lie_now_and_then_only_takes_longer(
    lied: Lied, lie: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 4)
    with lied.told(lie, probability=0.05):
        assert lied.read() is None
        lied.has_no_gap()
    assert lied.read() is None
    lied.is_told_in_full()


def test_all_lies_at_once_now_and_then_only_take_longer(
    lied: Lied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 4)
    every = [lie for lie in (*HEALED, *STOPS, *CHANGED, *HARMLESS) if lie is not lies.silence]
    with lied.proxy.lying(*every, probability=0.01) as proxy:
        for _ in range(5):
            lied.follower.forget()
            assert lied.read() is None
            lied.has_no_gap()
            happen(lied.anvil, 3)
        assert len(proxy.told) > 5
    assert lied.read() is None
    lied.is_told_in_full()


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
    every = [lie for lie in (*HEALED, *STOPS, *CHANGED, *HARMLESS) if lie is not lies.silence]
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
