"""Anything that happens to anchors on their way, in any order that a seed draws."""

import random
from collections.abc import Callable

from eth_account.signers.local import LocalAccount

from engine.chain import sender
from engine.chain.gateway import TransactionRejected
from engine.chain.sender import SignedTransaction
from tests.anvil_world import AnvilWithContracts, tick_until
from tests.engine.anchors import grow, opened_in, require_told, rows, sizes, stored
from tests.world import World

GWEI = 10**9


def settle(world: World) -> int:
    """Let everything arrive that is on its way, and then the whole log."""
    world.engine.tick()  # what is final in the database may be gone from the chain
    tick_until(world, lambda: all(state == "final" for _, state in stored(world)))
    size = grow(world)

    def arrived() -> bool:
        world.engine.tick(anchor=True)  # it may first have to open the log
        return (size, "final") in stored(world)

    tick_until(world, arrived)
    require_told(world)
    return size


def expensive(anvil: AnvilWithContracts, world: World) -> None:
    """The next block costs more than any transaction that was signed before."""
    base_fee = int(anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(base_fee * 10 + 10 * GWEI))


def overtaking(anvil: AnvilWithContracts, operator: LocalAccount, nonce: int) -> SignedTransaction:
    """A transaction of the operator's that takes the place of another one with this nonce."""
    same_fee = sender.sign(
        anvil.gateway, operator, to=operator.address.lower(), data=b"", nonce=nonce
    )
    higher = sender.sign_again(anvil.gateway, operator, same_fee.raw)
    return sender.sign_again(anvil.gateway, operator, higher.raw)


class Troubles:
    """An installation and what happens to it."""

    def __init__(self, anvil: AnvilWithContracts, world: World, seed: int) -> None:
        self.anvil, self.world = anvil, world
        self.random = random.Random(seed)
        self._first = opened_in(world)
        """The block of its log's opening; those before it are not its own."""

    def run(self, number: int) -> list[str]:
        """So many of them; then let everything arrive, and look. Returns what was done."""
        done: list[str] = []
        grow(self.world)
        with self.anvil.idle():
            for _ in range(number):
                done.append(self.do())
                found = sizes(self.world)
                assert found == sorted(set(found)), done
        assert settle(self.world) == sizes(self.world)[-1], done
        assert not any(self.world.engine.reconciler.run().found.values()), done
        return done

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
        if room := self.room():
            self.anvil.rpc("anvil_reorg", self.random.randint(1, min(3, room)), [])

    def lose_the_log(self) -> None:
        if room := self.room():
            self.anvil.rpc("anvil_reorg", room, [])

    def room(self) -> int:
        """How many blocks there are that are its own."""
        return max(0, self.anvil.gateway.head().number - self._first + 1)

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
                self.lose_the_log,
                self.restart,
            )
        )
        what()
        return what.__name__
