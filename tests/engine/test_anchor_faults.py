"""Whatever happens to anchors on their way, every size is anchored once, with the log's own root.

On a real Anvil: what waits there is dropped, priced out, overtaken, mined and taken back, and the
engine fails before and after each step.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from eth_account.signers.local import LocalAccount

from engine.chain import contracts, sender
from engine.chain.gateway import ChainUnavailable, TransactionRejected
from engine.chain.sender import SignedTransaction
from engine.db.tables import Anchor, table
from engine.errors import Unavailable
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.engine.test_anchorer import anchor, anchored, anchored_now, grow, sizes, stored
from tests.world import World

GWEI = 10**9
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


def rows(world: World) -> list[sa.Row[tuple[object, ...]]]:
    anchors = table(Anchor)
    with world.engine.database.reading() as connection:
        return list(connection.execute(sa.select(anchors).order_by(anchors.c.size)).all())


def opened_in(world: World) -> int:
    """The block in which the log was opened."""
    deployment, gateway = world.engine.deployment, world.engine.gateway
    topic = contracts.event_topic(contracts.ANCHOR_REGISTRY, "LogOpened")
    [opened] = gateway.logs(
        from_block=0,
        to_block=gateway.head().number,
        addresses=[deployment.anchors],
        topics=[topic, deployment.log_id],
    )
    return int(opened.block_number)


def tx_hashes(world: World) -> list[bytes]:
    """The transactions of the anchors as the database has them."""
    return [row.tx_hash for row in rows(world)]


def check(world: World) -> None:
    """The chain's anchors are the log's, strictly growing, and the database tells the same."""
    found = anchored(world)
    tree = world.engine._log.tree
    assert [event.args["root"] for event in found] == [
        tree.root(event.args["size"]) for event in found
    ]
    assert sizes(world) == sorted(set(sizes(world)))
    assert [(row.size, row.root, row.tx_hash) for row in rows(world)] == [
        (event.args["size"], event.args["root"], event.log.tx_hash) for event in found
    ]


def settle(world: World) -> int:
    """Let everything arrive that is on its way, and then the whole log."""
    world.engine.tick()  # what is final in the database may be gone from the chain
    tick_until(world, lambda: all(state == "final" for _, state in stored(world)))
    size = grow(world)
    anchor(world)
    tick_until(world, lambda: (size, "final") in stored(world))
    check(world)
    return size


def expensive(anvil: AnvilWithContracts, world: World) -> None:
    """The next block costs more than any transaction that was signed before."""
    base_fee = int(anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(base_fee * 10 + 10 * GWEI))


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


def raw_txs(row: sa.Row[tuple[object, ...]]) -> list[bytes]:
    """The transactions of an anchor, the oldest first."""
    return [*map(bytes.fromhex, json.loads(row.replaced_json)), row.raw_tx]


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


def overtaking(anvil: AnvilWithContracts, operator: LocalAccount, nonce: int) -> SignedTransaction:
    """A transaction of the operator's that takes the place of another one with this nonce."""
    same_fee = sender.sign(
        anvil.gateway, operator, to=operator.address.lower(), data=b"", nonce=nonce
    )
    higher = sender.sign_again(anvil.gateway, operator, same_fee.raw)
    return sender.sign_again(anvil.gateway, operator, higher.raw)


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


@pytest.mark.parametrize("moment", ["before it is written down", "before it is sent", "after"])
@pytest.mark.parametrize("hurried", [False, True], ids=["the first", "one with a higher fee"])
def test_a_failure_at_each_step_of_sending(
    anvil: AnvilWithContracts,
    on_anvil: World,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    hurried: bool,
) -> None:
    anchorer, gateway = on_anvil.engine.lead.anchorer, on_anvil.engine.gateway
    honest = gateway.send_raw
    size = grow(on_anvil)
    with anvil.idle():
        if hurried:
            anchor(on_anvil)
        with monkeypatch.context() as knife:
            if moment == "before it is written down":
                knife.setattr(anchorer, "_change" if hurried else "_keep", _killing)
            else:
                seen = len(rows(on_anvil)) and rows(on_anvil)[0].raw_tx

                def deadly(raw: bytes) -> bytes:
                    if raw == seen:
                        return honest(raw)
                    if moment == "after":
                        honest(raw)
                    raise Killed

                knife.setattr(gateway, "send_raw", deadly)
            with pytest.raises(Killed):
                on_anvil.engine.tick(anchor=not hurried)
        on_anvil.reopen()
        on_anvil.engine.tick(anchor=True)
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    assert sizes(on_anvil) == [size]
    settle(on_anvil)


def _killing(*_args: object, **_kwargs: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["_follow", "_move", "_adopt"])
def test_a_failure_after_it_was_mined(
    anvil: AnvilWithContracts, on_anvil: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    size = grow(on_anvil)
    with anvil.idle():
        anchor(on_anvil)
    with monkeypatch.context() as knife:
        knife.setattr(on_anvil.engine.lead.anchorer, step, _killing)
        with pytest.raises(Killed):
            on_anvil.engine.tick()
    on_anvil.reopen()
    tick_until(on_anvil, lambda: stored(on_anvil) == [(size, "final")])
    settle(on_anvil)


# Anything, in any order


class Trouble:
    """Does something to anchors on their way, drawn by a seed."""

    def __init__(self, anvil: AnvilWithContracts, world: World, seed: int) -> None:
        self.anvil, self.world = anvil, world
        self.random = random.Random(seed)

    def waiting(self) -> list[bytes]:
        return [row.tx_hash for row in rows(self.world) if row.state == "sent"]

    def grow(self) -> None:
        grow(self.world)

    def send(self) -> None:
        self.world.engine.tick(anchor=True)

    def tick(self) -> None:
        self.world.engine.tick()

    def mine(self) -> None:
        self.anvil.mine()

    def drop(self) -> None:
        for tx_hash in self.waiting():
            self.anvil.rpc("anvil_dropTransaction", "0x" + tx_hash.hex())

    def price_out(self) -> None:
        base_fee = int(self.anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        if base_fee < 100 * GWEI:
            expensive(self.anvil, self.world)

    def steal_the_nonce(self) -> None:
        operator = self.world.engine.deployment.operator
        raws = [row.raw_tx for row in rows(self.world) if row.state == "sent" and row.raw_tx]
        try:
            if raws:
                nonce = sender.fields_of(raws[0])["nonce"]
                self.anvil.gateway.send_raw(overtaking(self.anvil, operator, nonce).raw)
            else:
                sender.send(self.anvil.gateway, operator, to=operator.address.lower(), data=b"")
        except TransactionRejected:
            pass  # it was mined meanwhile, or offered with a fee that is higher still

    def reorganise(self) -> None:
        head = int(self.anvil.rpc("eth_blockNumber"), 16)
        room = head - opened_in(self.world)  # without its log there is nothing to anchor
        if room > 0:
            self.anvil.rpc("anvil_reorg", self.random.randint(1, min(3, room)), [])

    def restart(self) -> None:
        self.world.reopen()
        self.world.engine.lead.anchorer._patience_ms = 0

    def do(self) -> str:
        """One thing."""
        what: Callable[[], None] = self.random.choice(
            (
                self.grow,
                self.send,
                self.send,
                self.tick,
                self.tick,
                self.mine,
                self.mine,
                self.drop,
                self.price_out,
                self.steal_the_nonce,
                self.reorganise,
                self.restart,
            )
        )
        what()
        return what.__name__


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_troubles_ends_with_every_size_anchored_once(
    anvil: AnvilWithContracts, on_anvil: World, seed: int
) -> None:
    trouble = Trouble(anvil, on_anvil, seed)
    done = []
    grow(on_anvil)
    with anvil.idle():
        for _ in range(25):
            done.append(trouble.do())
            found = sizes(on_anvil)
            assert found == sorted(set(found)), done
    assert settle(on_anvil) == sizes(on_anvil)[-1], done
    assert on_anvil.engine.reconciler.run().found == NOTHING
