"""Whatever happens to anchors on their way, every size is anchored once, with the log's own root.

On a real Anvil: what waits there is dropped, priced out, overtaken, mined and taken back, and the
engine fails before and after each step. Longer, and with real kills: `scripts/kill-anchors`.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.audit.evidence import log_salt
from engine.chain import contracts, sender
from engine.chain.gateway import ChainUnavailable
from engine.chain.sender import SignedTransaction
from engine.db.tables import Anchor, table
from engine.errors import Unavailable
from engine.fsck.check import Chain, check
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.engine.anchor_troubles import Troubles, expensive, overtaking, settle
from tests.engine.anchors import (
    anchor,
    anchored,
    anchored_now,
    events,
    grow,
    opened_in,
    raw_txs,
    require_told,
    rows,
    sizes,
    stored,
    tx_hashes,
)
from tests.world import World

ROOT = Path(__file__).parents[2]
SEEDS = (2, 5)
TROUBLES = 25
NOTHING = {"critical": 0, "warning": 0, "info": 0}


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that loses, reorders and takes back."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def on_anvil(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    """An installation on it that is impatient."""
    with anvil.world(tmp_path / "data") as opened:
        opened.engine.lead.anchorer._patience_ms = 0
        yield opened


# A fee that is too low


def test_one_that_waits_for_long_is_offered_with_a_higher_fee(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        first = anchor(on_anvil)
        on_anvil.engine.tick()
        [row] = rows(on_anvil)
        assert row.tx_hash != first.tx_hash
        before, after = (sender.fields_of(raw) for raw in raw_txs(row))
        assert before["nonce"] == after["nonce"]
        for fee in ("maxFeePerGas", "maxPriorityFeePerGas"):
            assert after[fee] * 10 >= before[fee] * 11
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [event] = anchored(on_anvil)
    assert event.log.tx_hash == row.tx_hash
    settle(on_anvil)


def test_the_earlier_one_counts_if_it_is_the_one_that_is_mined(
    anvil: AnvilWithContracts, on_anvil: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with the higher fee never reached the chain."""
    size = grow(on_anvil)
    gateway = on_anvil.engine.gateway
    honest = gateway.send_raw
    with anvil.idle():
        first = anchor(on_anvil)
        with monkeypatch.context() as line:

            def cut(raw: bytes) -> bytes:
                if sender.fields_of(raw)["nonce"] and raw != first_raw:
                    raise ChainUnavailable("the line was cut")
                return honest(raw)

            [row] = rows(on_anvil)
            first_raw = row.raw_tx
            line.setattr(gateway, "send_raw", cut)
            on_anvil.engine.tick()
        [row] = rows(on_anvil)
        assert row.tx_hash != first.tx_hash
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [row] = rows(on_anvil)
    assert row.tx_hash == first.tx_hash
    assert len(raw_txs(row)) == 2
    settle(on_anvil)


def test_one_that_is_priced_out_is_mined_with_a_higher_fee(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        first = anchor(on_anvil)
        expensive(anvil, on_anvil)
        anvil.mine()
        assert sizes(on_anvil) == [], "it pays less than the block asks for"
        on_anvil.engine.tick()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    assert first.tx_hash not in tx_hashes(on_anvil)
    settle(on_anvil)


def test_a_higher_fee_than_is_reasonable_is_not_offered(
    anvil: AnvilWithContracts, on_anvil: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        first = anchor(on_anvil)
        monkeypatch.setattr(sender, "MAX_FEE_PER_GAS_WEI", 1)
        on_anvil.engine.tick()
        assert tx_hashes(on_anvil) == [first.tx_hash]
        assert on_anvil.engine.ready()["warnings"]
        monkeypatch.undo()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    settle(on_anvil)


def test_one_behind_another_transaction_keeps_its_fee(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    operator = on_anvil.engine.deployment.operator
    grow(on_anvil)
    with anvil.idle():
        sender.send(anvil.gateway, operator, to=operator.address.lower(), data=b"")
        first = anchor(on_anvil)
        on_anvil.engine.tick()
        assert tx_hashes(on_anvil) == [first.tx_hash]
    settle(on_anvil)


# A nonce that another transaction takes, and a block that is taken back


def test_another_transaction_takes_the_nonce(anvil: AnvilWithContracts, on_anvil: World) -> None:
    on_anvil.engine.lead.anchorer._patience_ms = 10**9
    operator = on_anvil.engine.deployment.operator
    grow(on_anvil)
    with anvil.idle():
        first = anchor(on_anvil)
        anvil.rpc("anvil_dropTransaction", "0x" + first.tx_hash.hex())
        sender.send(anvil.gateway, operator, to=operator.address.lower(), data=b"")
    settle(on_anvil)
    assert first.tx_hash not in tx_hashes(on_anvil)


def test_another_transaction_replaces_it_by_a_higher_fee(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    on_anvil.engine.lead.anchorer._patience_ms = 10**9
    operator = on_anvil.engine.deployment.operator
    grow(on_anvil)
    with anvil.idle():
        first = anchor(on_anvil)
        [row] = rows(on_anvil)
        nonce = sender.fields_of(row.raw_tx)["nonce"]
        anvil.gateway.send_raw(overtaking(anvil, operator, nonce).raw)
    settle(on_anvil)
    assert first.tx_hash not in tx_hashes(on_anvil)


def test_mined_and_taken_back_it_is_anchored_again(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = anchored_now(on_anvil)
    anvil.rpc("anvil_reorg", 1, [])
    tick_until(on_anvil, lambda: sizes(on_anvil) == [size])
    settle(on_anvil)


def test_mined_again_in_another_block_it_is_the_same_anchor(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    anvil.mine()
    size = anchored_now(on_anvil)
    [before] = rows(on_anvil)
    anvil.rpc("anvil_reorg", 2, [["0x" + before.raw_tx.hex(), 0]])
    on_anvil.engine.tick()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [after] = rows(on_anvil)
    assert after.tx_hash == before.tx_hash
    assert after.block_number == before.block_number - 1
    settle(on_anvil)


# Another engine with the same keys


def by_a_copy(anvil: AnvilWithContracts, world: World) -> SignedTransaction:
    """The anchor of everything, as another engine with the same records and keys would sign it."""
    world.engine.lead.sequence()
    checkpoint = world.engine.lead.anchorer.checkpoint()
    deployment = world.engine.deployment
    data = contracts.call_data(
        contracts.ANCHOR_REGISTRY, "anchor", deployment.log_id, checkpoint.size, checkpoint.root
    )
    return sender.sign(anvil.gateway, deployment.operator, to=deployment.anchors, data=data)


def test_a_copy_of_the_installation_that_came_first_counts_for_both(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        copy = by_a_copy(anvil, on_anvil)
        anvil.gateway.send_raw(copy.raw)
        with pytest.raises(Unavailable, match="SizeNotGrowing"):
            on_anvil.engine.anchor()
        assert rows(on_anvil) == []
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    assert tx_hashes(on_anvil) == [copy.hash]
    assert on_anvil.engine.reconciler.run().found == NOTHING
    settle(on_anvil)


def test_a_copy_of_the_installation_that_overtakes_counts_for_both(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    on_anvil.engine.lead.anchorer._patience_ms = 10**9
    size = grow(on_anvil)
    operator = on_anvil.engine.deployment.operator
    with anvil.idle():
        copy = sender.sign_again(anvil.gateway, operator, by_a_copy(anvil, on_anvil).raw)
        ours = anchor(on_anvil)
        assert (
            sender.fields_of(copy.raw)["nonce"]
            == sender.fields_of(rows(on_anvil)[0].raw_tx)["nonce"]
        )
        anvil.gateway.send_raw(copy.raw)
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    assert tx_hashes(on_anvil) == [copy.hash] != [ours.tx_hash]
    settle(on_anvil)


def test_what_the_database_forgot_of_an_anchor_the_chain_tells(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    size = anchored_now(on_anvil)
    [before] = rows(on_anvil)
    on_anvil.engine.writer.call(lambda batch: batch.update(sa.delete(table(Anchor))))
    on_anvil.engine.tick()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    [after] = rows(on_anvil)
    assert (after.tx_hash, after.block_hash) == (before.tx_hash, before.block_hash)
    anvil.rpc("anvil_reorg", 1, [])
    settle(on_anvil)


# A failure at each step


class Killed(BaseException):
    """What ends the step as a kill would: nothing after it happens."""


def test_a_failure_at_each_step_of_sending(
    anvil: AnvilWithContracts, on_anvil: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first transaction, or one with a higher fee that replaces it."""
    moments = ("before it is written down", "before it is sent", "after")
    for hurried, moment in itertools.product((False, True), moments):
        on_anvil.engine.lead.anchorer._patience_ms = 0
        size = grow(on_anvil)
        with anvil.idle():
            if hurried:
                anchor(on_anvil)
            known = [raw for row in rows(on_anvil) for raw in raw_txs(row)]
            with monkeypatch.context() as knife:
                if moment == "before it is written down":
                    anchorer = on_anvil.engine.lead.anchorer
                    knife.setattr(anchorer, "_change" if hurried else "_keep", _killing)
                else:
                    deadly = _deadly(on_anvil, known, arrived=moment == "after")
                    knife.setattr(on_anvil.engine.gateway, "send_raw", deadly)
                with pytest.raises(Killed):
                    on_anvil.engine.tick(anchor=not hurried)
            on_anvil.reopen()
            on_anvil.engine.tick(anchor=True)
        tick_until(on_anvil, lambda size=size: (size, "final") in stored(on_anvil))
        require_told(on_anvil)
    settle(on_anvil)


def _killing(*_args: object, **_kwargs: object) -> None:
    raise Killed


def _deadly(world: World, known: list[bytes], *, arrived: bool) -> Callable[[bytes], bytes]:
    """Sends what is known, and is the end of whoever sends another."""
    honest: Callable[[bytes], bytes] = world.engine.gateway.send_raw

    def send(raw: bytes) -> bytes:
        if raw in known:
            return honest(raw)
        if arrived:
            honest(raw)
        raise Killed

    return send


def test_a_failure_after_it_was_mined(
    anvil: AnvilWithContracts, on_anvil: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("_follow", "_move", "_adopt"):
        size = grow(on_anvil)
        with anvil.idle():
            anchor(on_anvil)
        with monkeypatch.context() as knife:
            knife.setattr(on_anvil.engine.lead.anchorer, step, _killing)
            with pytest.raises(Killed):
                on_anvil.engine.tick()
        on_anvil.reopen()
        tick_until(on_anvil, lambda size=size: (size, "final") in stored(on_anvil))
    settle(on_anvil)


# The log itself is gone


def closed(anvil: AnvilWithContracts, world: World) -> None:
    """A reorganisation that takes the opening of the log away, and all anchors with it."""
    depth = anvil.gateway.head().number - opened_in(world) + 1
    anvil.rpc("anvil_reorg", depth, [])
    assert events(world, "LogOpened") == []


def opening(world: World) -> Any:
    """What is kept of the opening, if it is on its way or arrived."""
    return next((row for row in rows(world, opening=True) if row.size == 0), None)


def test_a_log_that_is_not_open_any_more_is_opened_and_anchored(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    anchored_now(on_anvil)
    for _ in range(2):
        size = anchored_now(on_anvil)
        closed(anvil, on_anvil)
        on_anvil.engine.tick()
        tick_until(on_anvil, lambda size=size: stored(on_anvil)[-1:] == [(size, "final")])
        assert sizes(on_anvil)[-1] == size
        assert opening(on_anvil).state == "final"
        assert on_anvil.engine.ready()["warnings"] == []
        settle(on_anvil)
        assert on_anvil.engine.reconciler.run().found == NOTHING
        chain = Chain(anvil.gateway, anvil.deployed.registry)
        assert check(on_anvil.store, chain=chain).findings == ()


def test_an_opening_is_sent_mined_and_final_and_offered_with_a_higher_fee(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with anvil.world(tmp_path / "data", confirmations=2) as world, anvil.idle():
        anvil.mine()
        grow(world)
        closed(anvil, world)
        with pytest.raises(Unavailable, match="is not open on the chain") as refused:
            world.engine.anchor()
        assert refused.value.code == "anchor_refused"
        seen = [opening(world).state]
        assert world.engine.ready()["anchored"] == 0
        world.reopen()
        first = opening(world)
        world.engine.lead.anchorer._patience_ms = 0
        world.engine.tick()
        assert opening(world).tx_hash != first.tx_hash
        [warning] = world.engine.ready()["warnings"]
        assert "is not open on the chain" in warning
        for _ in range(3):
            anvil.mine()
            world.engine.tick()
            seen.append(opening(world).state)
        assert seen == ["sent", "mined", "mined", "final"]
        [(_, state)] = stored(world)
        assert state == "mined"


def test_a_log_that_a_copy_opened_meanwhile_is_anchored(
    anvil: AnvilWithContracts, on_anvil: World
) -> None:
    on_anvil.engine.lead.anchorer._patience_ms = 10**9
    deployment = on_anvil.engine.deployment
    size = grow(on_anvil)
    closed(anvil, on_anvil)
    data = contracts.call_data(
        contracts.ANCHOR_REGISTRY, "openLog", log_salt(deployment.log_verifier_key)
    )
    with anvil.idle():
        copy = anvil.sign(deployment.operator, deployment.anchors, data)
        with pytest.raises(Unavailable, match="is not open on the chain"):
            on_anvil.engine.anchor()
        operator = deployment.operator
        anvil.gateway.send_raw(sender.sign_again(anvil.gateway, operator, copy.raw).raw)
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    assert opening(on_anvil) is None, "it was refused"
    settle(on_anvil)


# Anything, in any order, and in the middle of it


@pytest.mark.parametrize("seed", SEEDS)
def test_any_sequence_of_troubles_ends_with_every_size_anchored_once(
    anvil: AnvilWithContracts, on_anvil: World, seed: int
) -> None:
    assert len(Troubles(anvil, on_anvil, seed).run(TROUBLES)) == TROUBLES


def test_killed_at_a_step_each_size_is_anchored_once() -> None:
    """The short version of `scripts/kill-anchors`, in a process that has no threads to fork."""
    command = [sys.executable, "-m", "tests.engine.kill_anchors", "--seed", "1", "--kills", "2"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2  engines killed\n" in done.stdout
