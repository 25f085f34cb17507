"""What is indexed is what a clean reading of the canonical chain gives, whatever happened to it."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from engine.chain import contracts, sender
from engine.chain.deploy import create
from engine.chain.gateway import BlockHeader, ChainUnavailable
from engine.chain.indexer import REORG_DEPTH_MAX, DeepReorg
from engine.errors import Unavailable
from engine.ledger.batch import Batch
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until, wait_until
from tests.chain.following import Follower, indexed, sources_of
from tests.sessions.seen import REGISTRY, events
from tests.world import WORKSPACE, World

DEPTHS = (1, 2, 5, 10, 30)


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that these tests may rewrite."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def world(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    """An installation on it."""
    with anvil.world(tmp_path / "data") as opened:
        yield opened


class CleanReader:
    """Reads a chain anew each time, with an indexer that never saw another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def agrees_with(self, world: World) -> None:
        """Assert that the world has indexed the same, row for row."""
        world.engine.lead._read_chain()  # an anchor may have been mined after the last reading
        deployment = world.engine.deployment
        follower = Follower(
            self._directory / f"{next(_files)}.sqlite3",
            world.engine.gateway,
            sources_of(deployment),
            genesis_hash=deployment.genesis_hash,
            start_block=deployment.start_block,
        )
        try:
            clean = follower.read()
        finally:
            follower.close()
        assert indexed(world.engine.database) == clean
        assert clean[1][-1][0] == world.engine.gateway.head().number


_files = itertools.count()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanReader:
    """The second reader."""
    return CleanReader(tmp_path_factory.mktemp("clean"))


def reorganise(anvil: AnvilWithContracts, depth: int, _snapshot: str = "") -> None:
    """The same height, other blocks: a transaction in the first of them makes sure of that."""
    stranger = anvil.stranger.address
    last_common = anvil.gateway.head().number - depth
    nonce = int(anvil.rpc("eth_getTransactionCount", stranger, hex(last_common)), 16)
    signed = sender.sign(anvil.gateway, anvil.stranger, to=stranger.lower(), data=b"", nonce=nonce)
    anvil.rpc("anvil_reorg", depth, [["0x" + signed.raw.hex(), 0]])


def roll_back(anvil: AnvilWithContracts, depth: int, _snapshot: str) -> None:
    """A head that went backwards."""
    anvil.rpc("anvil_rollback", depth)


def put_back(anvil: AnvilWithContracts, _depth: int, snapshot: str) -> None:
    """A node that was put back to an earlier state, and went on differently."""
    anvil.rpc("evm_revert", snapshot)
    anvil.mine()


def revoke(world: World, view: SessionView) -> None:
    """The operator revokes, and the chain knows."""
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    tick_until(world, lambda: len(events(world.engine, "SessionRevoked", view)) == 1)


def registered(world: World, view: SessionView) -> bool:
    """Whether the chain and the engine agree that it is registered, or was before its end."""
    return state(world, view) != "registering" and bool(
        events(world.engine, "SessionRegistered", view)
    )


def anchored(world: World) -> bool:
    """Whether everything that was committed before the newest anchor is final."""
    anchor = world.engine.lead.anchorer.latest()
    return anchor is not None and anchor.state == "final"


def revoked(world: World, view: SessionView) -> bool:
    return state(world, view) == "revoked" and bool(events(world.engine, "SessionRevoked", view))


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def code(world: World, view: SessionView) -> str:
    return str(world.pay(view, 1).decision["code"])


@pytest.mark.parametrize("rewrite", [reorganise, roll_back, put_back])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_rewritten_history_leaves_what_a_clean_reading_gives(
    anvil: AnvilWithContracts,
    world: World,
    clean: CleanReader,
    depth: int,
    rewrite: Callable[[AnvilWithContracts, int, str], None],
) -> None:
    """Within the lost blocks: one session registered and, if they are enough, another revoked."""
    old = world.session(mint_pkp=True)
    snapshot, height = anvil.rpc("evm_snapshot"), anvil.gateway.head().number
    new = world.session(mint_pkp=True)
    if depth > 1:
        revoke(world, old)
    if left := depth - (anvil.gateway.head().number - height):
        anvil.mine(left)
    world.engine.tick()
    before = (state(world, old), state(world, new))
    assert before == ("revoked" if depth > 1 else "active", "active")
    clean.agrees_with(world)

    with anvil.idle():
        rewrite(anvil, depth, snapshot)
        world.engine.tick()
        assert events(world.engine, "SessionRegistered", new) == []
        assert code(world, new) == "SESSION_NOT_ANCHORED", "at first sight"
        assert state(world, old) == before[0], "what was tightened stays tight"
        assert code(world, old) == ("SESSION_REVOKED" if depth > 1 else "ALLOWED")
        clean.agrees_with(world)
    tick_until(world, lambda: registered(world, new))
    tick_until(world, lambda: revoked(world, old) or depth == 1)
    assert (state(world, old), state(world, new)) == before
    assert code(world, new) == "ALLOWED"
    assert len(events(world.engine, "SessionRegistered", new)) == 1
    assert len(events(world.engine, "SessionRevoked", old)) == (depth > 1)
    clean.agrees_with(world)


def test_a_session_that_was_registered_and_revoked_in_the_lost_blocks_is_both_again(
    anvil: AnvilWithContracts, world: World, clean: CleanReader
) -> None:
    view = world.session(mint_pkp=True)
    world.pay(view, 1)
    world.engine.anchor()
    tick_until(world, lambda: anchored(world))
    revoke(world, view)
    with anvil.idle():
        anvil.rpc("anvil_reorg", 3, [])
        assert events(world.engine, "SessionRegistered", view) == []
        world.engine.tick()
        assert code(world, view) == "SESSION_REVOKED"
    tick_until(world, lambda: revoked(world, view))
    assert len(events(world.engine, "SessionRegistered", view)) == 1
    assert len(events(world.engine, "SessionRevoked", view)) == 1
    clean.agrees_with(world)
    world.engine.anchor()
    tick_until(world, lambda: anchored(world))


def test_the_owners_revocation_that_vanished_still_holds_and_is_made_good_by_the_operator(
    anvil: AnvilWithContracts, world: World, clean: CleanReader
) -> None:
    view = world.session(mint_pkp=True)
    data = contracts.revoking(view.grant, view.token_id)
    anvil.transact(anvil.owner, to=anvil.deployed.registry, data=data)
    world.engine.tick()
    assert code(world, view) == "SESSION_REVOKED"
    anvil.rpc("anvil_reorg", 1, [])
    world.engine.tick()
    assert code(world, view) == "SESSION_REVOKED"
    tick_until(world, lambda: revoked(world, view))
    [event] = events(world.engine, "SessionRevoked", view)
    assert event.args["by"] == anvil.operator.address
    clean.agrees_with(world)


def test_the_same_transaction_in_another_block_counts_once(
    anvil: AnvilWithContracts, world: World, clean: CleanReader
) -> None:
    anvil.mine(2)
    view = world.session(mint_pkp=True)
    [before] = events(world.engine, "SessionRegistered", view)
    raw = anvil.rpc("eth_getRawTransactionByHash", "0x" + before.log.tx_hash.hex())
    anvil.rpc("anvil_reorg", 3, [[raw, 1]])
    world.engine.tick()
    assert code(world, view) == "ALLOWED"
    [after] = events(world.engine, "SessionRegistered", view)
    assert after.log.tx_hash == before.log.tx_hash
    assert after.log.block_hash != before.log.block_hash
    clean.agrees_with(world)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_history_leaves_what_a_clean_reading_gives(
    anvil: AnvilWithContracts, world: World, clean: CleanReader, seed: int
) -> None:
    chance = random.Random(seed)
    views: list[SessionView] = []
    for _ in range(24):
        does = chance.choice(("register", "register", "revoke", "anchor", "mine", "rewrite"))
        if does == "register":
            views.append(world.session(mint_pkp=True))
        elif does == "revoke" and views:
            world.engine.revoke_session(WORKSPACE, chance.choice(views).id, by="somebody")
        elif does == "anchor":
            world.engine.anchor()
        elif does == "mine":
            anvil.mine(chance.randint(1, 3))
        else:
            # Never further back than where this installation began.
            room = anvil.gateway.head().number - world.engine.deployment.start_block - 1
            depth = min(chance.randint(1, 6), max(1, room))
            chance.choice((reorganise, roll_back))(anvil, depth, "")
            world.engine.tick()
            clean.agrees_with(world)
    for view in views:
        tick_until(world, lambda view=view: registered(world, view))
        if state(world, view) == "revoked":
            tick_until(world, lambda view=view: revoked(world, view))
    clean.agrees_with(world)
    for view in views:
        ended = state(world, view)
        assert ended in ("active", "revoked")
        assert len(events(world.engine, "SessionRegistered", view)) == 1
        assert len(events(world.engine, "SessionRevoked", view)) == (ended == "revoked")


def test_as_deep_as_is_remembered_is_followed_and_one_deeper_stops_decisions(
    anvil: AnvilWithContracts, world: World, clean: CleanReader
) -> None:
    there, here = world.session(mint_pkp=True), world.session(mint_pkp=False)
    anvil.mine(2 * REORG_DEPTH_MAX)
    world.engine.tick()
    reorganise(anvil, REORG_DEPTH_MAX)
    world.engine.tick()
    assert world.engine.lead.chain_fault is None
    assert code(world, there) == "ALLOWED"
    clean.agrees_with(world)

    reorganise(anvil, REORG_DEPTH_MAX + 1)
    world.engine.tick()
    assert "replaced more than" in str(world.engine.lead.chain_fault)
    assert world.engine.ready()["ready"] is False
    with pytest.raises(Unavailable) as refused:
        world.pay(there, 1)
    assert refused.value.code == "chain_reorganised"
    assert code(world, here) == "ALLOWED"
    with pytest.raises(DeepReorg):
        world.engine.lead.indexer.tick()
    world.reopen()
    assert "replaced more than" in str(world.engine.lead.chain_fault), (
        "a restart does not forget it"
    )
    with pytest.raises(Unavailable):
        world.pay(there, 1)


def emitter(topics: list[bytes], data: bytes = b"") -> bytes:
    """Init code that emits one event, whatever it is, and creates nothing."""
    code = b"".join(
        b"\x7f" + data[at : at + 32].ljust(32, b"\x00") + b"\x61" + at.to_bytes(2) + b"\x52"
        for at in range(0, len(data), 32)
    )
    code += b"".join(b"\x7f" + topic for topic in reversed(topics))
    return code + b"\x61" + len(data).to_bytes(2) + b"\x5f" + bytes([0xA0 + len(topics)]) + b"\x00"


def test_impostors_are_not_heard(
    anvil: AnvilWithContracts, world: World, clean: CleanReader
) -> None:
    """The same events of other contracts, and an event that has no name."""
    active, waiting = world.session(mint_pkp=True), world.create()
    [genuine] = events(world.engine, "SessionRegistered", active)
    before, _ = indexed(world.engine.database)

    def emit(topics: list[bytes], data: bytes = b"") -> None:
        receipt = anvil.transact(anvil.stranger, to=None, data=emitter(topics, data))
        assert [log.topics for log in receipt.logs] == [tuple(topics)]

    ended = contracts.event_topic(REGISTRY, "SessionRevoked")
    emit([ended, active.token_id, active.grant_hash, bytes(12) + anvil.stranger.key[:20]])
    emit([genuine.log.topics[0], waiting.token_id, *genuine.log.topics[2:]], genuine.log.data)
    emit([])
    # A registry of somebody else, in which the same key is registered with the same grant.
    other = create_registry(anvil)
    call = contracts.registering(active.grant, active.public_key)
    anvil.transact(anvil.stranger, to=other, data=call)
    call = contracts.revoking(active.grant, active.token_id)
    anvil.transact(anvil.stranger, to=other, data=call)
    world.engine.tick()
    assert indexed(world.engine.database)[0] == before
    assert code(world, active) == "ALLOWED"
    assert state(world, waiting) == "awaiting_consent"
    clean.agrees_with(world)


def create_registry(anvil: AnvilWithContracts) -> str:
    anchors = to_checksum_address(anvil.deployed.anchors)
    return create(anvil.gateway, anvil.stranger, REGISTRY, anvil.stranger.address, anchors)


def test_many_blocks_are_read_in_portions_and_none_is_left_out(
    anvil: AnvilWithContracts, tmp_path: Path, clean: CleanReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 7)
    with anvil.world(tmp_path / "data") as world:
        views = []
        for _ in range(3):
            views.append(world.session(mint_pkp=True))
            anvil.mine(20)
        world.engine.tick()
        clean.agrees_with(world)
        found = [row for row in indexed(world.engine.database)[0] if row[4] == "SessionRegistered"]
        assert [row[5] for row in found] == [view.token_id for view in views]


def test_a_chain_that_changes_while_it_is_read_is_read_again(
    anvil: AnvilWithContracts, world: World, monkeypatch: pytest.MonkeyPatch, clean: CleanReader
) -> None:
    """Between the events and the headers the newest block is replaced."""
    gateway, honest = world.engine.gateway, world.engine.gateway.logs
    view = world.consent(world.create(), wait_s=0)
    world.engine.lead.registrar.tick()
    wait_until(lambda: bool(events(world.engine, "SessionRegistered", view)))

    def replaced(**wanted: Any) -> list[Any]:
        logs = honest(**wanted)
        anvil.rpc("anvil_reorg", 1, [])
        return logs

    monkeypatch.setattr(gateway, "logs", replaced)
    before = indexed(world.engine.database)
    with pytest.raises(ChainUnavailable, match="of another block"):
        world.engine.lead.indexer.tick()
    assert indexed(world.engine.database) == before
    monkeypatch.setattr(gateway, "logs", honest)
    tick_until(world, lambda: registered(world, view))
    assert state(world, view) == "active"
    clean.agrees_with(world)


def test_blocks_that_do_not_hang_together_are_not_believed(
    anvil: AnvilWithContracts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer in front of two nodes answers from both."""
    gateway, honest = world.engine.gateway, world.engine.gateway.headers
    anvil.mine(3)
    before = indexed(world.engine.database)

    def other(first: int, last: int) -> list[BlockHeader]:
        headers = honest(first, last)
        headers[0] = replace(headers[0], parent_hash=bytes(32))
        return headers

    monkeypatch.setattr(gateway, "headers", other)
    with pytest.raises(ChainUnavailable, match="does not follow"):
        world.engine.lead.indexer.tick()
    assert indexed(world.engine.database) == before


def test_a_failure_while_a_reorganisation_is_stored_leaves_all_of_it_to_the_next_time(
    anvil: AnvilWithContracts, world: World, monkeypatch: pytest.MonkeyPatch, clean: CleanReader
) -> None:
    view = world.session(mint_pkp=True)
    before = indexed(world.engine.database)
    anvil.rpc("anvil_reorg", 2, [])
    listen = world.engine.lead.indexer._on_change

    def fail(batch: Batch, tip: BlockHeader, subjects: set[bytes]) -> None:
        listen(batch, tip, subjects)
        batch.flush()
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(world.engine.lead.indexer, "_on_change", fail)
    with pytest.raises(Unavailable):
        world.engine.lead.indexer.tick()
    assert indexed(world.engine.database) == before
    assert state(world, view) == "active"
    monkeypatch.setattr(world.engine.lead.indexer, "_on_change", listen)
    tick_until(world, lambda: registered(world, view))
    assert state(world, view) == "active"
    clean.agrees_with(world)
