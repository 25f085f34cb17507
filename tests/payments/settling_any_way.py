"""Whatever blocks come, go and are reported, a payment ends as the chain says, and not before.

CI tries a few ways; `scripts/settlements --seed N --examples M` as many as one likes.

Each example signs a payment on a chain of its own and draws blocks that settle it or not, other
blocks in the place of the newest, reports that may be lies, and restarts. After every reading:
captured if, and only if, a block that is final has it; expired if, and only if, none has and the
time of a final block is past the signature's; held, else.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from engine.chain.gateway import ChainGateway
from engine.clock import system_clock
from engine.payments.gate import Gate, Signed
from engine.payments.settlement_watch import SettlementWatch
from engine.sessions.session import SessionView
from engine.settings import Token
from tests.payments.scripted_chain import TOKEN, ScriptedChain, Transaction, paying
from tests.world import WORKSPACE, World

FINALITY, CONFIRMATIONS = 3, 1
SHOP = "0x" + "5b" * 20
_chain_ids = itertools.count(7_000_000)

happening = st.sampled_from(["nothing", "paid", "reverted", "paid by another"])
late = st.sampled_from([False, False, False, True])
mined = st.tuples(st.just("mine"), st.lists(happening, min_size=1, max_size=3), late)
replaced = st.tuples(
    st.just("replace"), st.integers(1, FINALITY), st.lists(happening, max_size=2), st.just(False)
)
other = st.tuples(st.sampled_from(["kill", "report", "report a lie", "report nothing", "silence"]))
steps = st.tuples(mined | mined | replaced | other, st.sampled_from([True, True, True, False]))
"""What happens, and whether it is read before the next."""


class Paid:
    """One payment on a scripted chain, and an engine that watches it."""

    def __init__(self, world: World, view: SessionView, **how: Any) -> None:
        self.world = world
        self.chain = ScriptedChain(next(_chain_ids), system_clock() // 1000, **how)
        self.network = f"eip155:{self.chain.chain_id}"
        self.token = Token(
            symbol="S", asset=f"{self.network}/erc20:{TOKEN}", decimals=6, usd_price="1"
        )
        for _ in range(FINALITY):
            self.chain.mine()
        self.watch = self._watch()
        self.signed = self._sign(view)
        self.authorization = self.signed.authorization

    @property
    def gateway(self) -> ChainGateway:
        return self.chain  # type: ignore[return-value]

    def _watch(self) -> SettlementWatch:
        engine = self.world.engine
        return SettlementWatch(
            self.gateway,
            self.network,
            engine.database,
            engine.writer,
            engine.paying,
            engine.clock,
            confirmations=CONFIRMATIONS,
            finality=FINALITY,
        )

    def _sign(self, view: SessionView) -> Signed:
        engine, whole = self.world.engine, self.world.engine.gate
        gate = Gate(
            engine.paying,
            engine.settlements,
            whole._signer,
            [self.token],
            {self.network: self.gateway},
        )
        offer = {
            "scheme": "exact",
            "network": self.network,
            "asset": TOKEN,
            "amount": "10000",
            "payTo": SHOP,
            "maxTimeoutSeconds": 60,
            "extra": {},
        }
        required = {"x402Version": 2, "accepts": [offer]}
        found = gate.pay(view.id, required, f"https://shop.test/{self.chain.chain_id}")
        assert isinstance(found, Signed)
        return found

    def read(self) -> None:
        self.watch.tick()

    def kill(self) -> None:
        """All that was in memory is lost."""
        self.watch = self._watch()

    def report(self, tx_hash: bytes | None) -> None:
        self.world.engine.paying.report(WORKSPACE, self.signed.payment.id, tx_hash).result()

    @property
    def state(self) -> str:
        """Of the settlement."""
        payment = self.signed.payment
        return self.world.engine.settlements.of([payment])[payment.id].state

    @property
    def payment(self) -> Any:
        """As the ledger has it now."""
        return self.world.engine.payments.get(WORKSPACE, self.signed.payment.id)

    def mine(self, happenings: Iterable[str], *, late: bool) -> None:
        """One block for each; the token is honest."""
        for what in happenings:
            over_s = self.authorization.valid_before_s
            at_s = max(self.chain.head().timestamp_s + 1, over_s + 1 if late else 0)
            nonce, top = self.authorization.nonce, len(self.chain.blocks)
            salt = str(self.chain._written) if what == "paid by another" else ""
            transaction = paying(self.authorization, salt)
            if what == "nothing":
                self.chain.mine(at_s=at_s)
                continue
            refused = at_s >= over_s or bool(self.chain.uses(nonce, top))
            reverted = what == "reverted" or refused
            self.chain.mine(Transaction(transaction.hash, transaction.events, reverted), at_s=at_s)

    def check(self) -> None:
        """The ledger says what the chain says."""
        head, nonce = self.chain.head(), self.authorization.nonce
        final = self.chain.blocks[head.number - FINALITY].header
        settled = bool(self.chain.uses(nonce, final.number))
        over = final.timestamp_s > self.authorization.valid_before_s
        payment = self.payment
        expected = "captured" if settled else "expired" if over else "held"
        assert payment.state == expected
        assert payment.captured == (payment.amount if settled else 0)
        seen = self.chain.uses(nonce, head.number)
        if expected == "held":
            depth = head.number - seen[0].block_number if seen else -1
            if seen:
                assert self.state == ("pending" if depth < CONFIRMATIONS else "confirmed")
            else:
                assert self.state not in ("pending", "confirmed", "final", "expired")


def take(paid: Paid, taken: Iterable[tuple[tuple[Any, ...], bool]]) -> None:
    """Take these steps, and look after each reading; at the end it is over."""
    for (step, *how), read in taken:
        if step == "mine":
            paid.mine(how[0], late=how[1])
        elif step == "replace":
            depth = min(how[0], len(paid.chain.blocks) - FINALITY - 1)
            paid.chain.drop(depth)
            paid.mine([*how[1], *["nothing"] * (depth - len(how[1]))], late=False)
        elif step == "silence":
            paid.chain.silent = True
            before = paid.payment.state
            paid.read()
            assert (paid.watch.fault, paid.payment.state) == ("silent", before)
            paid.chain.silent = False
        elif step == "kill":
            paid.kill()
        else:
            lie = b"\x11" * 32  # nothing is known of it
            told = {"report": paying(paid.authorization).hash, "report a lie": lie}
            paid.report(told.get(step))
        if read:
            paid.read()
            paid.check()
    paid.mine(["nothing"] * (FINALITY + 1), late=True)
    paid.read()
    paid.check()
    assert paid.payment.state != "held"


@contextmanager
def shopper(directory: Path) -> Iterator[tuple[World, SessionView]]:
    """An installation with one session."""
    world = World(directory)
    yield world, world.session()
    world.engine.close()


def check_any_way(world: World, view: SessionView, *, examples: int, drawn_from: int) -> None:
    """Try so many ways, drawn from a number."""

    @seed(drawn_from)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(steps, min_size=4, max_size=12))
    def drawn(taken: list[Any]) -> None:
        take(Paid(world, view), taken)

    drawn()


def main(arguments: list[str] | None = None) -> int:
    """The command; fails as a test does."""
    parser = argparse.ArgumentParser(prog="scripts/settlements")
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--examples", type=int, default=500, help="in all (%(default)s)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, shopper(Path(directory)) as (world, view):
        check_any_way(world, view, examples=asked.examples, drawn_from=asked.seed)
    sys.stdout.write(f"ended as the chain says, {asked.examples} times\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
