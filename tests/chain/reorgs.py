"""Rewrites a chain under a running engine, and compares all that it indexed with a clean reading.

    scripts/reorgs --seed 7 --rounds 64

Each round makes a fork of a drawn depth in which sessions of the engine are registered, rightly or
wrongly, revoked and lowered, others too, and logs anchored; lets the engine read it, here and there
in the middle; and replaces it by another fork, one of three ways: `anvil_reorg`, `anvil_rollback`
and other blocks on top, or by going over to another Anvil with the same beginning. In some rounds
the engine that reads this is killed at a drawn step, up to three times. Then its tables must be,
row for row, those of an indexer that reads the chain for the first time, and each session must be
what the events say (what was seen revoked stays so).

With as many rounds as `--depth-max`, every depth up to that is there once.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import structlog

from engine.chain.indexer import REORG_DEPTH_MAX
from engine.sessions.session import SessionView
from tests.chain.following import Follower, indexed, sources_of
from tests.chain.forks import Blocks, Hands, extend, replace_newest, rpc
from tests.chain.killed_reader import drop
from tests.chain.rpc_proxy import RpcProxy
from tests.chain.two_chains import SESSIONS, Chains, Killer, new_session, node, waiting_world
from tests.world import WORKSPACE, World

ROOT = Path(__file__).parents[2]
KILLS_MAX = 3
KILLED = 0.34
LOOKS_BETWEEN = 0.5
LENGTH_MAX = 64
RENEWED_MAX = 4
WAYS = ("reorg", "rollback", "switch")


class Differs(AssertionError):
    """What is indexed is not what a clean reading gives."""


class Rounds:
    """One engine, and what is done to its chain. `figures` counts it."""

    def __init__(self, chains: Chains, world: World, hands: Hands, draw: random.Random) -> None:
        self.chains, self.world, self._hands, self._draw = chains, world, hands, draw
        self._killer = Killer(draw)
        self._fork: Blocks = []
        self._revoked: set[str] = set()
        self.figures: Counter[str] = Counter()
        deployment = world.engine.deployment
        self._clean = [
            Follower(
                world.settings.data_dir.with_name(f"clean-{number}.sqlite3"),
                gateway,
                sources_of(deployment),
                genesis_hash=deployment.genesis_hash,
                start_block=deployment.start_block,
            )
            for number, gateway in enumerate(chains.gateways)
        ]

    def close(self) -> None:
        """End what reads cleanly, and what kills."""
        for clean in self._clean:
            clean.close()
        self._killer.close()

    def round(self, way: str, depth: int) -> None:
        """Replace the newest `depth` blocks, and compare."""
        self._renew()
        if len(self._fork) < depth:
            self._grow(depth)
        elif way == "switch" and len(self._fork) > depth:
            self._roll_back(len(self._fork) - depth)
            self.look()
        {"reorg": self._reorg, "rollback": self._rollback, "switch": self._switch}[way](depth)
        self.figures[f"rounds by {way}"] += 1
        self.figures["blocks replaced"] += depth
        if self._draw.random() < KILLED:
            self._kill()
        self.look()

    def _renew(self) -> None:
        """What was seen revoked stays so; new sessions take the places of some."""
        sessions = self._hands.sessions
        for view in [view for view in sessions if view.id in self._revoked][:RENEWED_MAX]:
            sessions.remove(view)
            sessions.append(new_session(self.world))

    def look(self) -> None:
        """Let the engine read, and compare."""
        self.world.engine.tick()
        if fault := self.world.engine.lead.chain_fault:
            raise Differs(f"the engine stopped: {fault}")
        found = indexed(self.world.engine.database)
        clean = self._clean[self.chains.active].read_anew()
        for name, ours, theirs in zip(("events", "blocks"), found, clean, strict=True):
            if ours != theirs:
                raise Differs(
                    f"{name}: {len(ours)} rows, {len(theirs)} in a clean reading; "
                    f"only here {[row for row in ours if row not in theirs][:3]}, "
                    f"only there {[row for row in theirs if row not in ours][:3]}"
                )
        self.figures["comparisons"] += 1
        self.figures["events compared"] += len(found[0])
        for view in self._hands.sessions:
            expected = self._expected(view, clean[0])
            actual = self.world.engine.sessions.get(WORKSPACE, view.id).state
            if actual != expected:
                raise Differs(f"session {view.id} is {actual}, and by the chain {expected}")
            self.figures[f"sessions found {expected}"] += 1

    def _expected(self, view: SessionView, events: Sequence[Any]) -> str:
        """What a session must be by the events that there are, and by those that were seen."""
        own = {row[4]: json.loads(row[6]) for row in events if row[5] == view.token_id}
        if "SessionRevoked" in own:
            self._revoked.add(view.id)
        if view.id in self._revoked:
            return "revoked"
        if "SessionRegistered" not in own:
            return "registering"
        right = own["SessionRegistered"]["grantHash"] == "0x" + view.grant_hash.hex()
        return "active" if right else "mismatch"

    def _grow(self, depth: int) -> None:
        """More blocks, which the engine reads as they come."""
        more = self._hands.fork(
            self.chains.url, self.chains.ancestor(0), depth - len(self._fork), []
        )
        self._fork = self._fork + more
        cuts = sorted(self._draw.choices(range(len(more) + 1), k=2))
        for start, end in zip((0, *cuts), (*cuts, len(more)), strict=True):
            extend(self.chains.url, more[start:end])
            self.world.engine.tick()
        self.look()

    def _roll_back(self, depth: int) -> Blocks:
        rpc(self.chains.url, "anvil_rollback", depth)
        cut = len(self._fork) - depth
        gone, self._fork = self._fork[cut:], self._fork[:cut]
        return gone

    def _reorg(self, depth: int) -> None:
        """As many other blocks at once."""
        cut = len(self._fork) - depth
        ancestor = self.chains.ancestor(depth)
        other = self._hands.fork(self.chains.url, ancestor, depth, self._fork[cut:])
        self._fork = self._fork[:cut] + other
        replace_newest(self.chains.url, other)

    def _rollback(self, depth: int) -> None:
        """First fewer, then others, more or fewer than there were."""
        gone = self._roll_back(depth)
        if self._draw.random() < LOOKS_BETWEEN:
            self.look()
        length = self._draw.randint(1, LENGTH_MAX - len(self._fork))
        other = self._hands.fork(self.chains.url, self.chains.ancestor(0), length, gone)
        self._fork = self._fork + other
        extend(self.chains.url, other)

    def _switch(self, _depth: int) -> None:
        """Another node has the same beginning, and goes on from there in its own way."""
        self.chains.go_over()
        length = self._draw.randint(1, LENGTH_MAX)
        self._fork = self._hands.fork(self.chains.url, self.chains.ancestor(0), length, self._fork)
        extend(self.chains.url, self._fork)
        self.chains.show()

    def _kill(self) -> None:
        """Let engines read what has changed, and die of it."""
        self.world.engine.close()
        for _ in range(self._draw.randint(1, KILLS_MAX)):
            self.figures[self._killer.kill(self.world)] += 1
        self.world.engine = self.world._open()


@contextmanager
def prepared(directory: Path, draw: random.Random) -> Iterator[Rounds]:
    """An installation with sessions that all wait for the chain, and two nodes that know it.

    Its own operator may not register any more, so that all that happens is drawn.
    """
    with ExitStack() as stack:
        states = [directory / f"anvil-{number}.json" for number in range(2)]
        first = node(states[0]).start()
        proxy = stack.enter_context(RpcProxy(first.url))
        try:
            world = waiting_world(first, proxy.url, directory)
        finally:
            first.stop()
        shutil.copy(states[0], states[1])
        nodes = [stack.enter_context(node(state)) for state in states]
        proxy.upstreams = tuple(node.url for node in nodes)
        proxy.switch(0)
        chains = Chains(proxy, proxy.upstreams)
        stack.callback(chains.close)
        world.engine = world._open()
        stack.callback(lambda: world.engine.close())
        deployment = world.engine.deployment
        hands = Hands(
            draw,
            nodes[0].accounts()[3:],
            chain_id=deployment.chain_id,
            registry=deployment.registry,
            anchors=deployment.anchors,
        )
        hands.sessions = world.engine.sessions.page(WORKSPACE, offset=0, limit=SESSIONS)[0]
        rounds = Rounds(chains, world, hands, draw)
        stack.callback(rounds.close)
        yield rounds


Plan = Sequence[tuple[str, int]]
"""Of each round, the way and the depth."""


def planned(seed: int, rounds: int, depth_max: int, ways: Sequence[str]) -> Plan:
    """Every depth once before one comes twice."""
    draw = random.Random(seed)
    depths = list(range(1, depth_max + 1))
    plan: list[tuple[str, int]] = []
    while len(plan) < rounds:
        draw.shuffle(depths)
        plan += [(draw.choice(ways), depth) for depth in depths]
    return plan[:rounds]


def run(seed: int, plan: Plan) -> Counter[str]:
    """Go through all rounds of a plan; returns the figures.

    Raises:
        Differs: naming the round.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystick-reorgs-"))
        made = stack.enter_context(prepared(Path(directory), random.Random(seed)))
        for number, (way, depth) in enumerate(plan):
            try:
                made.round(way, depth)
            except Differs as difference:
                raise Differs(
                    f"seed {seed}, round {number} ({way} of {depth}): {difference}"
                ) from difference
        return made.figures


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 if something differed."""
    parser = argparse.ArgumentParser(
        prog="scripts/reorgs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--rounds", type=int, default=64, help="in all (%(default)s)")
    parser.add_argument("--depth-max", type=int, default=64, help="the deepest (%(default)s)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one; may repeat")
    asked = parser.parse_args(arguments)
    if not 1 <= asked.depth_max <= REORG_DEPTH_MAX:
        parser.error(f"--depth-max: 1 to {REORG_DEPTH_MAX}, deeper than that the engine stops")
    structlog.configure(processors=[drop])
    started = time.monotonic()
    try:
        ways = asked.way or WAYS
        figures = run(asked.seed, planned(asked.seed, asked.rounds, asked.depth_max, ways))
    except Differs as difference:
        sys.stdout.write(f"{difference}\n")
        return 1
    for name, count in sorted(figures.items()):
        sys.stdout.write(f"{count:>10,}  {name}\n")
    sys.stdout.write(f"nothing differed in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
