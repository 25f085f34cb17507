"""Anchors: one per size, none for nothing new, and their state is what the chain says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.db.tables import CheckpointRow, table
from engine.errors import Unavailable
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.engine.anchors import anchor, anchored, anchored_now, grow, sizes, stored
from tests.world import World


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that can lose what it had."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def on_anvil(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    """An installation with a log of its own on it."""
    with anvil.world(tmp_path / "data") as opened:
        yield opened


def test_an_anchor_holds_the_root_of_everything_committed(world: World) -> None:
    size = grow(world)
    view = anchor(world)
    [event] = anchored(world)
    assert (view.size, view.state) == (size, "final")
    assert event.args == {
        "logId": world.engine.deployment.log_id,
        "size": size,
        "root": world.engine._log.tree.root(size),
    }
    assert view.root == event.args["root"]
    assert world.engine.ready()["anchored"] == size


def test_with_nothing_new_nothing_is_anchored(world: World) -> None:
    first_size = grow(world)
    first = anchor(world)
    assert anchor(world) == first
    world.engine.tick()
    assert sizes(world) == [first_size]
    second_size = grow(world)
    world.engine.tick()
    assert sizes(world) == [first_size], "only when it is asked for, or due"
    anchor(world)
    assert sizes(world) == [first_size, second_size]


def test_each_anchor_has_a_checkpoint_of_its_size(world: World) -> None:
    for _ in range(3):
        grow(world)
        anchor(world)
    rows = table(CheckpointRow)
    with world.engine.database.reading() as connection:
        kept = connection.execute(sa.select(rows.c.size, rows.c.root)).all()
    on_chain = [(event.args["size"], event.args["root"]) for event in anchored(world)]
    assert sorted(map(tuple, kept)) == on_chain


def test_the_background_anchors_when_it_is_due(tmp_path: Path) -> None:
    world = World(tmp_path / "data", anchor_interval_s=1)
    size = grow(world)
    world.engine.start()
    condition = world.engine.lead.ticked
    with condition:
        assert condition.wait_for(lambda: stored(world) == [(size, "final")], timeout=20)
    assert sizes(world) == [size]
    world.engine.close()


@pytest.mark.parametrize("arrived", [False, True], ids=["never arrived", "arrived all the same"])
def test_one_whose_answer_was_lost_stays_sent_and_is_sent_again_unchanged(
    world: World, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    gateway = world.engine.gateway
    honest, attempts = gateway.send_raw, []

    def cut(raw: bytes) -> bytes:
        attempts.append(raw)
        if arrived and len(attempts) == 1:
            honest(raw)
        raise ChainUnavailable("the line was cut")

    def deaf(_tx_hash: bytes) -> None:
        raise ChainUnavailable("the line was cut")

    size = grow(world)
    with monkeypatch.context() as line:
        line.setattr(gateway, "send_raw", cut)
        if arrived:
            line.setattr(gateway, "receipt", deaf)
        before = anchor(world)
        assert before.state == "sent"
        grow(world)
        for _ in range(3):
            with pytest.raises(Unavailable):  # another is not sent while its fate is unknown
                anchor(world)
            assert stored(world) == [(size, "sent")]
    assert world.engine.ready()["anchored"] == 0
    world.engine.tick()
    world.engine.tick()
    assert stored(world) == [(size, "final")]
    [event] = anchored(world)
    assert event.log.tx_hash == before.tx_hash
    assert len(set(attempts)) == 1
    anchor(world)
    assert len(sizes(world)) == 2


def test_one_that_lost_its_nonce_is_replaced_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, operator = world.engine.gateway, world.engine.deployment.operator

    def cut(raw: bytes) -> bytes:
        raise ChainUnavailable("the line was cut")

    grow(world)
    with monkeypatch.context() as line:
        line.setattr(gateway, "send_raw", cut)
        lost = anchor(world)
    sender.send(gateway, operator, to=operator.address.lower(), data=b"")
    size = grow(world)
    world.engine.tick()
    assert stored(world) == [(size, "final")]
    [event] = anchored(world)
    assert event.log.tx_hash != lost.tx_hash


def test_one_that_reverted_makes_room_for_another(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    grow(on_anvil)
    anchors = on_anvil.engine.deployment.anchors
    code = anvil.gateway.code(anchors)
    with anvil.idle():
        reverted = anchor(on_anvil)
        anvil.rpc("anvil_setCode", anchors, "0x60006000fd")
    anvil.rpc("anvil_setCode", anchors, "0x" + code.hex())
    receipt = anvil.gateway.receipt(reverted.tx_hash)
    assert receipt is not None
    assert not receipt.succeeded
    size = grow(on_anvil)
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [event] = anchored(on_anvil)
    assert event.log.tx_hash != reverted.tx_hash


def test_sent_mined_and_final_are_three_things(anvil: AnvilWithContracts, tmp_path: Path) -> None:
    with anvil.world(tmp_path / "data", confirmations=2) as world:
        size = grow(world)
        with anvil.idle():
            seen = [anchor(world).state]
        for _ in range(3):
            world.engine.tick()
            seen += [state for _, state in stored(world)]
            anvil.mine()
        assert seen == ["sent", "mined", "mined", "final"]
        assert sizes(world) == [size]


def test_one_that_was_dropped_from_the_pool_is_sent_again(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        sent = anchor(on_anvil)
        anvil.rpc("anvil_dropTransaction", "0x" + sent.tx_hash.hex())
        on_anvil.engine.tick()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [event] = anchored(on_anvil)
    assert event.log.tx_hash == sent.tx_hash


def test_a_reorganisation_takes_even_a_final_anchor_back_to_sent(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    first, second = anchored_now(on_anvil), anchored_now(on_anvil)
    assert stored(on_anvil) == [(first, "final"), (second, "final")]
    with anvil.idle():
        anvil.rpc("anvil_reorg", 2, [])
        assert sizes(on_anvil) == []
        on_anvil.engine.tick()
        assert stored(on_anvil) == [(first, "sent"), (second, "sent")]
        assert on_anvil.engine.ready()["anchored"] == 0
    tick_until(on_anvil, lambda: stored(on_anvil) == [(first, "final"), (second, "final")])
    assert sizes(on_anvil) == [first, second]


def test_a_reorganisation_that_strands_an_anchor_does_not_stop_anchoring(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    """What held the nonce before it is gone, so it could wait for good."""
    operator = on_anvil.engine.deployment.operator
    anvil.transact(operator, to=operator.address.lower())
    size = anchored_now(on_anvil)
    [before] = anchored(on_anvil)
    anvil.rpc("anvil_reorg", 2, [])
    assert anchored(on_anvil) == []
    tick_until(on_anvil, lambda: sizes(on_anvil) == [size])
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [after] = anchored(on_anvil)
    assert after.log.tx_hash != before.log.tx_hash


def test_an_older_anchor_still_stands_when_only_the_newest_is_lost(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    first, second = anchored_now(on_anvil), anchored_now(on_anvil)
    with anvil.idle():
        anvil.rpc("anvil_reorg", 1, [])
        on_anvil.engine.tick()
        assert stored(on_anvil) == [(first, "final"), (second, "sent")]


def test_a_refusal_of_the_chain_is_said_and_stops_no_decision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of another, that has opened it."""
    size = anchored_now(world)
    grow(world)
    chain, salt = world.engine.gateway, b"\x66" * 32
    assert isinstance(chain, EmbeddedChain)
    chain.fund(world.owner.address.lower(), 10**18)
    opening = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
    sender.send(chain, world.owner, to=world.engine.deployment.anchors, data=opening)
    theirs = contracts.log_id_of(world.owner.address, salt)
    with monkeypatch.context() as line:
        line.setattr(world.engine.lead.anchorer, "_log_id", theirs)
        with pytest.raises(Unavailable, match=f"{world.owner.address.lower()} opened") as refused:
            world.engine.anchor()
        assert refused.value.code == "anchor_refused"
        state = world.engine.ready()
        assert (state["ready"], state["faults"]) == (True, [])
        [warning] = state["warnings"]
        assert warning.startswith("the chain refused the anchor: log_of_another: ")
    assert anchor(world).size > size
    assert world.engine.ready()["warnings"] == []
