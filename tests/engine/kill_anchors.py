"""Kills engines by SIGKILL at each step of an anchor's life, and looks what the next make of it.

    scripts/kill-anchors --seed 7 --kills 140

On a real Anvil. Each kill has a situation (a new anchor, one that is mined, one that waits for
long, one whose nonce another transaction took, one that a reorganisation took away, and one whose
whole log it took away) and a step in it. A forked process opens the engine, comes to that step and
kills itself there; some of those that open the directory after it die, too. Then an engine is left
alone: what the chain holds must be each size once, with the root of the records, and the database
must tell the same.

Every step is there once before one comes twice. A process that does not die is a failure.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from engine.chain import sender
from engine.chain.json_rpc import JsonRpcChain
from engine.fsck.check import Chain, check
from engine.ledger.writer import Writer
from tests.anvil_world import PATIENCE_S, AnvilWithContracts, anvil_with_contracts
from tests.chain.killed_reader import drop
from tests.engine.anchors import anchored, grow, opened_in, raw_txs, require_told, rows, sizes
from tests.world import World

KILLED_AGAIN = 0.34
"""So many of those that open the directory after a kill are killed as well."""
BLOCKS_MAX = 40
"""After so many blocks there is another installation: none follows a chain back by more than 64."""
CONFIRMATIONS = 1

SENDING = ("asked to sign", "signed", "row written", "row committed", "sent")
FORGETTING = ("row deleted", "deletion committed")
STEPS = {
    "new": SENDING,
    "mined": ("receipt seen", "row written", "row committed"),
    "slow": SENDING,
    "replaced": (*FORGETTING, *SENDING),
    "taken back": ("no receipt seen", "row written", "row committed"),
    "log taken back": (*FORGETTING, *SENDING),
    "log taken back again": ("no receipt seen", "row written", "row committed"),
}
"""By situation, the steps of the ticks that handle it; `sent` is when the chain has taken it."""
TWICE = "log taken back"
"""There most steps come twice, for the opening of the log and for the anchor after it."""


class Wrong(AssertionError):
    """Chain or database are not as they must be after a kill, or there was none."""


class Steps:
    """Has this process kill itself when it comes to a step for the `nth` time."""

    def __init__(self, last: str, nth: int, known: Sequence[bytes]) -> None:
        """Transactions that are `known` are not sent for the first time."""
        self._last, self._left, self._known = last, nth, known
        self._written: str | None = None

    def at(self, step: str) -> None:
        """It came to this one."""
        self._left -= step == self._last
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Hear of every step from now on, for as long as the process lives."""
        sa.event.listen(sa.Engine, "after_cursor_execute", self._executed)
        for name in ("sign", "sign_again"):
            self._around(sender, name, self._signing)
        self._around(Writer, "call", self._calling)
        self._around(JsonRpcChain, "send_raw", self._sending)
        self._around(JsonRpcChain, "receipt", self._looking)

    @staticmethod
    def _around(owner: Any, name: str, watched: Callable[..., Any]) -> None:
        honest = getattr(owner, name)
        setattr(owner, name, lambda *given, **named: watched(honest, *given, **named))

    def _signing(self, sign: Any, *given: Any, **named: Any) -> Any:
        self.at("asked to sign")
        signed = sign(*given, **named)
        self.at("signed")
        return signed

    def _calling(self, call: Any, *given: Any) -> Any:
        answer = call(*given)
        if self._written is not None:
            written, self._written = self._written, None
            self.at({"row written": "row committed"}.get(written, "deletion committed"))
        return answer

    def _sending(self, send: Any, chain: JsonRpcChain, raw: bytes) -> Any:
        tx_hash = send(chain, raw)
        if raw not in self._known:
            self.at("sent")
        return tx_hash

    def _looking(self, receipt: Any, *given: Any) -> Any:
        found = receipt(*given)
        self.at("no receipt seen" if found is None else "receipt seen")
        return found

    def _executed(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        verb, *rest = statement.split(None, 3)
        if verb in ("INSERT", "UPDATE", "DELETE") and "anchors" in rest[:2]:
            self._written = "row deleted" if verb == "DELETE" else "row written"
            self.at(self._written)


class Kills:
    """Installations on one Anvil, whose engines are killed one by one. `figures` counts it."""

    def __init__(self, anvil: AnvilWithContracts, directory: Path, draw: random.Random) -> None:
        self._anvil, self._directory, self._draw = anvil, directory, draw
        self._made = 0
        self._first = 0
        self._world: World | None = None
        self.figures: Counter[str] = Counter()

    def kill(self, situation: str, step: str) -> None:
        """Kill one there, and perhaps more that come after it; then let one live, and look."""
        world = self._settled_world(situation)
        self._bring_about(world, situation)
        size = world.engine.ready()["records"]
        known = [raw for row in rows(world, opening=True) for raw in raw_txs(row)]
        world.engine.close()
        nth = self._draw.choice((1, 2)) if situation == TWICE and step in SENDING else 1
        status = self._ended(world, situation, Steps(step, nth, known))
        if status != -signal.SIGKILL:
            raise Wrong(f"{situation}, {step}: the process ended with {status}")
        self.figures[f"{situation}: {step}"] += 1
        self.figures["engines killed"] += 1
        while self._draw.random() < KILLED_AGAIN:
            again = Steps(self._draw.choice(SENDING), self._draw.choice((1, 2)), known)
            status = self._ended(world, situation, again)
            if status not in (0, -signal.SIGKILL):
                raise Wrong(f"{situation}, after {step}: the process ended with {status}")
            after = "engines killed after that" if status else "engines that came to no such step"
            self.figures[after] += 1
        world.engine = world._open()
        self._settle(world)
        if sizes(world).count(size) != 1:
            raise Wrong(f"{situation}, {step}: {size} is not once among {sizes(world)}")
        if any(world.engine.reconciler.run().found.values()):
            raise Wrong(f"{situation}, {step}: {world.engine.reconciler.open()}")
        self.figures["anchors compared"] += len(sizes(world))

    def leave(self) -> None:
        """Be done with the installation: all that it wrote is as `fsck` wants it."""
        if self._world is None:
            return
        self._world.engine.close()
        chain = Chain(self._anvil.gateway, self._anvil.deployed.registry)
        report = check(self._world.store, chain=chain)
        self._world = None
        if not report.clean:
            raise Wrong(f"fsck: {report.findings}")
        self.figures["installations"] += 1

    def _settled_world(self, situation: str) -> World:
        """An installation, open, with something new that is anchored for good."""
        if self._world is not None:
            head = self._world.engine.gateway.head().number
            reopened = rows(self._world, opening=True)[0].size == 0
            if head - self._first > BLOCKS_MAX or (situation == TWICE and reopened):
                self.leave()
        if self._world is None:
            self._made += 1
            self._anvil.rpc("evm_setAutomine", True)
            self._world = World(
                self._directory / str(self._made),
                **self._anvil.settings,
                confirmations=CONFIRMATIONS,
            )
            self._anvil.rpc("evm_setAutomine", False)
            self._first = opened_in(self._world)
        grow(self._world)
        self._settle(self._world)
        return self._world

    def _settle(self, world: World) -> None:
        """Tick and mine until everything is anchored and nothing is on its way."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            world.engine.tick(anchor=True)
            told = rows(world)
            anchored_all = told and told[-1].size == world.engine.ready()["records"]
            if anchored_all and all(row.state == "final" for row in rows(world, opening=True)):
                break
            if time.monotonic() > deadline:
                raise Wrong(f"nothing settles: {told}, {world.engine.lead.anchorer.refused}")
            self._anvil.mine()
        require_told(world)

    def _bring_about(self, world: World, situation: str) -> None:
        """What comes before the step."""
        anvil, operator = self._anvil, world.engine.deployment.operator
        if situation == "taken back":
            self._take_back(anchored(world)[-1].log.block_number)
            return
        if situation.startswith(TWICE):
            self._take_back(opened_in(world))
            if situation != TWICE:
                self._settle(world)
                self._take_back(opened_in(world))
            return
        grow(world)
        if situation == "new":
            return
        world.engine.tick(anchor=True)
        if situation == "mined":
            anvil.mine()
        elif situation == "replaced":
            [row] = [row for row in rows(world) if row.state == "sent"]
            anvil.rpc("anvil_dropTransaction", "0x" + row.tx_hash.hex())
            sender.send(anvil.gateway, operator, to=operator.address.lower(), data=b"")
            anvil.mine()

    def _take_back(self, first: int) -> None:
        """Other blocks from this one on."""
        self._anvil.rpc("anvil_reorg", self._anvil.gateway.head().number - first + 1, [])

    def _ended(self, world: World, situation: str, steps: Steps) -> int:
        """How a process ends that opens the directory: 0, or minus the signal."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._live(world, situation, steps)
                status = 0
            except BaseException:  # noqa: BLE001 (nothing of the parent's may run here)
                traceback.print_exc()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _live(self, world: World, situation: str, steps: Steps) -> None:
        steps.watch()
        engine = world._open()
        engine.lead.anchorer._patience_ms = 0 if situation == "slow" else PATIENCE_S * 1000
        for _ in range(4):
            engine.tick(anchor=True)
            if situation == TWICE:
                self._anvil.mine()
        engine.close()


def planned(draw: random.Random, kills: int) -> list[tuple[str, str]]:
    """So many situations and steps, in a drawn order; each comes before one comes again."""
    every = [(situation, step) for situation, steps in STEPS.items() for step in steps]
    plan: list[tuple[str, str]] = []
    while len(plan) < kills:
        draw.shuffle(every)
        plan += every
    return plan[:kills]


def run(seed: int, plan: Sequence[tuple[str, str]]) -> Counter[str]:
    """Kill at each step of a plan; returns the figures.

    Raises:
        Wrong: naming the seed and the number of the kill.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tallystick-anchors-") as directory,
        anvil_with_contracts() as anvil,
    ):
        kills = Kills(anvil, Path(directory), random.Random(seed))
        for number, (situation, step) in enumerate(plan):
            try:
                kills.kill(situation, step)
            except AssertionError as wrong:
                raise Wrong(f"seed {seed}, kill {number}: {wrong}") from wrong
        kills.leave()
        return kills.figures


def main() -> int:
    """The command; returns the exit status: 1 if something was wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/kill-anchors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--kills", type=int, default=140, help="in all (%(default)s)")
    asked = parser.parse_args()
    structlog.configure(processors=[drop])
    started = time.monotonic()
    try:
        figures = run(asked.seed, planned(random.Random(asked.seed), asked.kills))
    except Wrong as wrong:
        sys.stdout.write(f"{wrong}\n")
        return 1
    for name, count in sorted(figures.items()):
        sys.stdout.write(f"{count:>10,}  {name}\n")
    sys.stdout.write(f"nothing was wrong in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
