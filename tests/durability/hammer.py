"""What both hammers share: sessions to pay from, processes that pay, and what must hold in the end.

In the end no answer was lost or changed; by the records, which are read by an oracle that shares
no code with the engine, every decision was the only right one at its instant, so that no limit was
exceeded and none was left unused that somebody asked for; the log has no gap and the roots that
were signed; and the evidence verifies.

What grows with the number of payments is in files (`journals`, `facts`) or is 32 bytes a record.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.settings import Settings
from tests.anvil_world import tick_until
from tests.audit import rfc6962
from tests.durability.journals import Journals
from tests.durability.payers import USD, Payer, Question, Target
from tests.durability.pools import Pool, Shared, SharedRecords, read_log
from tests.durability.processes import forked
from tests.durability.worker import ERA, Work, work
from tests.ledger.oracle import query, require
from tests.ledger.served import verify
from tests.world import WORKSPACE, World

HOLD_TTL_S = 2
ERA_DECISIONS = 1_000
KILLED_WHILE_STARTING = 0.15
PATIENCE_S = 120
ASKED_AGAIN_MAX = 20_000
ASKED_AT_ONCE = 384
POLL_S = 0.02
ANCHORS_MAX = 2_000

LOOSE = Limits(28 * USD, 1_000 * USD, 900 * USD, None, 25 * USD)
PARENT = Limits(None, 600 * USD, None, 700 * USD, None)
CHILD = Limits(None, 500 * USD, None, 600 * USD, None)
BY_DOLLARS = Limits(None, None, 40 * USD, None, None)
AGENT_USD, WORKSPACE_USD = 700, 60


@dataclass(frozen=True)
class Size:
    """How long a run is: so many processes pay until there are so many decisions and kills."""

    seed: int
    processes: int
    decisions: int
    kills: int

    @property
    def anchor_interval_s(self) -> int:
        """Each anchor is a row, a transaction and a root to compare: a long run has no more."""
        return max(1, self.decisions // 1_000 // (ANCHORS_MAX // 4))


class Hammer(ABC):
    """One run."""

    store: Path | str
    """Where the ledger is, as `tests.ledger.oracle.query` takes it."""
    one_writer: bool

    def __init__(self, directory: Path, size: Size) -> None:
        self.directory, self.size = directory, size
        self.random = random.Random(size.seed)
        self.journals = Journals(directory)
        self.figures = self.journals.figures
        self.pools: dict[str, list[Pool]] = {}
        self.eras: list[tuple[Target, ...]] = []
        self.always: list[Target] = []
        self.board = RawArray("i", [0, 0])
        self.workers: dict[int, tuple[Work, BaseProcess]] = {}
        self.tree = rfc6962.Growing()

    def run(self) -> dict[str, Any]:
        """All of it; returns the figures.

        Raises:
            Broken: naming the first promise that does not hold.
        """
        started = time.monotonic()
        with self.world("first") as world:
            self.create(world)
        self.records = SharedRecords(self.pools, self.journals.facts, one_writer=self.one_writer)
        self.targets = {each.session: each for era in (*self.eras, self.always) for each in era}
        try:
            self.begin()
            loaded = time.monotonic()
            for number in range(self.size.processes):
                self.start(number, 0)
            self.load_and_kill()
            self.stop()
            self.figures["seconds of load"] = round(time.monotonic() - loaded)
            self.end()
        finally:
            for _, process in self.workers.values():
                process.kill()
        with self.world("last") as world:
            self.judge(world)
        self.figures["seconds"] = round(time.monotonic() - started)
        given = {"seed": self.size.seed, "processes": self.size.processes}
        return {**given, **dict(sorted(self.figures.items()))}

    @abstractmethod
    def world(self, name: str) -> AbstractContextManager[World]:
        """An engine of our own, before and after all others."""

    @abstractmethod
    def begin(self) -> None:
        """Make ready what the workers ask."""

    @abstractmethod
    def settings_of(self, number: int) -> Settings | None:
        """What a worker opens an engine with, None if it asks a server."""

    @abstractmethod
    def kill(self, share: float) -> None:
        """Kill what is to be killed once so much of all was decided, 0 to 1."""

    @abstractmethod
    def killed_enough(self) -> bool:
        """Whether all kills were done."""

    @abstractmethod
    def end(self) -> None:
        """What is to be done when nobody pays any more, before the last engine opens."""

    @abstractmethod
    def rpc(self, world: World) -> str:
        """Where an auditor reads the chain."""

    # The sessions

    def create(self, world: World) -> None:
        """The sessions of every era, and those on the chain."""
        for _ in range(2):
            view = world.session(Limits(None, 10**6 * USD, None, None, None), mint_pkp=True)
            self.always.append(self.target(world, view))
        for era in range(-(-self.size.decisions // ERA_DECISIONS)):
            self.eras.append(tuple(self.create_era(world, era)))

    def create_era(self, world: World, era: int) -> Iterator[Target]:
        """Sessions of their own, a family, two of one agent, and two of one workspace."""
        engine = world.engine
        agent_id, workspace = f"agent-{era}", f"workspace-{era}"
        engine.agents.register(WORKSPACE, agent_id, None)
        limits = BudgetLimits(per_day=AGENT_USD * USD, lifetime=2 * AGENT_USD * USD)
        engine.budgets.set(WORKSPACE, agent_id, limits, by="test")
        engine.access.create_workspace(workspace, workspace)
        engine.budgets.set(workspace, None, BudgetLimits(per_week=WORKSPACE_USD * USD), by="test")
        family = Pool("ancestor_budget", PARENT.per_day or 0)
        agents = Pool("agent_budget", AGENT_USD * USD)
        theirs = Pool("workspace_budget", WORKSPACE_USD * USD)
        parent = world.session(PARENT)
        family.session = parent.id
        yield self.target(world, parent, family)
        for _ in range(2):
            child = world.session(CHILD, parent_id=parent.id, duration_ms=23 * 3_600_000)
            yield self.target(world, child, family)
            yield self.target(world, world.session(LOOSE, agent_id=agent_id), agents)
            view = world.session(BY_DOLLARS, workspace=workspace)
            yield self.target(world, view, theirs, by_dollars=True)
        yield self.target(world, world.session(LOOSE))
        yield self.target(world, world.session(BY_DOLLARS), by_dollars=True)

    def target(self, world: World, view: Any, *pools: Pool, by_dollars: bool = False) -> Target:
        """As the workers are told of the session that was made last, which spends from `pools`."""
        self.pools[view.id] = list(pools)
        return Target(view.id, view.workspace_id, world.token, by_dollars)

    # The workers

    def start(self, number: int, life: int) -> None:
        """Begin a life of a worker."""
        settings = self.settings_of(number)
        eras, always = tuple(self.eras), tuple(self.always)
        given = Work(
            number, life, self.size.seed, settings, self.directory, eras, always, self.board
        )
        process = forked().Process(target=work, args=(given,), daemon=True)
        process.start()
        self.workers[number] = given, process

    def load_and_kill(self) -> None:
        """Let them pay, and kill meanwhile."""
        heard, since = 0, time.monotonic()
        while True:
            answers = self.journals.follow()
            if answers > heard:
                heard, since = answers, time.monotonic()
            require(time.monotonic() - since < PATIENCE_S, "answers keep coming")
            if answers >= self.size.decisions and self.killed_enough():
                return
            self.board[ERA] = min(answers // ERA_DECISIONS, len(self.eras) - 1)
            self.kill(min(1.0, answers / self.size.decisions))
            for given, process in self.workers.values():
                require(process.exitcode is None, f"worker {given.number} ended: {said(given)}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Let everyone finish, with an answer to everything."""
        self.board[ERA] = -1
        for given, process in self.workers.values():
            process.join(PATIENCE_S)
            require(process.exitcode == 0, f"worker {given.number} ended: {said(given)}")
        self.journals.follow()

    # The checks

    def ask_again(self, payer: Payer) -> None:
        """What nobody heard an answer to has one by its key, and old answers are as they were."""
        facts = self.journals.facts
        unheard = facts.unanswered()
        count = facts.count("answered")
        places = self.random.sample(range(1, count + 1), min(count, ASKED_AGAIN_MAX))
        some = facts.sample(places)
        require(len(some) == len(places), "what was answered was asked")
        self.figures["never answered, asked by another"] = len(unheard)
        heard = {asked.key for asked in some}
        for batch in batched(unheard + some, ASKED_AT_ONCE):
            waiting = [(asked, payer.ask(self.targets[asked.session], asked)) for asked in batch]
            for asked, coming in waiting:
                answer = coming.result()
                require(answer["replayed"] or asked.key not in heard, f"{asked.key} is forgotten")
                self.journals.heard(asked.key, answer)

    def follow_log(self) -> None:
        """Read what the log has more, and compare each root that was signed meanwhile."""
        records, before = self.records, len(self.records.leaves)
        # Roots first: a server at work places more records and signs over them meanwhile.
        signed = "SELECT size, root FROM checkpoints WHERE size > ? ORDER BY size"
        roots = query(self.store, signed, before)
        records.feed(read_log(self.store, before))
        for size, root in roots:
            require(size <= len(records.leaves), f"the records end before size {size}")
            self._grow(size)
            require(self.tree.root() == root, f"the root at size {size} is another")
            self.figures["checkpoints"] += 1
        self._grow(len(records.leaves))
        self.figures["records"] = len(records.leaves)

    def _grow(self, size: int) -> None:
        while self.tree.size < size:
            self.tree.append(self.records.leaves[self.tree.size])

    def judge(self, world: World) -> None:
        """Everything that must hold once nobody pays any more."""
        held = "SELECT 1 FROM decisions WHERE state = 'held' LIMIT 1"
        tick_until(world, lambda: not query(self.store, held))
        anchor = world.engine.anchor()
        self.follow_log()
        require(anchor is not None and anchor.size == len(self.records.leaves), "all is anchored")
        tick_until(world, lambda: world.engine.lead.anchorer.latest().state == "final")
        [(records,)] = query(self.store, "SELECT count(*) FROM records")
        require(records == len(self.records.leaves), "all records have a place")
        facts = self.journals.facts
        facts.check()
        [(dead,)] = facts.rows("SELECT count(*) FROM answered WHERE firsts = 0")
        self.figures["decided by a process that died before it said so"] = dead
        self.journals.check_keys(self.store)
        self.check_exact()
        self.check_remaining(world)
        self.check_evidence(world)

    def check_exact(self) -> None:
        """Where more dollars were asked for, one by one, than allowed: all that is allowed."""
        sums = "SELECT session, sum(amount) FROM asked GROUP BY session"
        wanted = dict(self.journals.facts.rows(sums))
        for targets in self.eras:
            alone, theirs = {}, {}
            for target in targets:
                if target.by_dollars:
                    (theirs if self.pools[target.session] else alone)[target.session] = target
            [session] = alone
            budget = self.records.budgets[session]
            limit = budget.limits["per_week"] or 0
            if wanted.get(session, 0) >= limit:
                require(budget.remaining(0)["per_week"] == 0, f"{session} is used up")
                self.figures["sessions used up exactly"] += 1
            [pool] = {id(pool): pool for each in theirs for pool in self.pools[each]}.values()
            if sum(wanted.get(each, 0) for each in theirs) >= pool.limit:
                require(pool.used == pool.limit, f"{pool.used} of {pool.limit} were approved")
                self.figures["budgets used up exactly"] += 1

    def check_remaining(self, world: World) -> None:
        """The engine leaves what the records leave."""
        for session, budget in self.records.budgets.items():
            if session in self.targets:
                left = world.engine.ledger.remaining(session).result()
                assert isinstance(budget, Shared)
                for window, expected in budget.told(world.engine.clock()).items():
                    require(getattr(left, window) == expected, f"{session}: {window} {left}")

    def check_evidence(self, world: World) -> None:
        """The evidence of the sessions that are on the chain verifies."""
        registry = world.engine.deployment.registry
        server: Any = SimpleNamespace(rpc=self.rpc(world), registry=registry)
        for target in self.always:
            file = self.directory / f"{target.session}.json"
            file.write_bytes(world.engine.evidence(WORKSPACE, target.session))
            require(verify(file, server) == 0, "the evidence is verified")
            self.figures["evidence files verified"] += 1


def rounds(run: Callable[[Path, Size], dict[str, Any]], size: Size, count: int) -> None:
    """So many runs of that size, one after the other on new seeds; prints the figures of each."""
    for number in range(count):
        each = replace(size, seed=size.seed + number)
        sys.stdout.write(f"seed {each.seed}\n")
        sys.stdout.flush()
        with tempfile.TemporaryDirectory(prefix="tallystick-hammer-") as directory:
            figures = run(Path(directory), each)
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        sys.stdout.flush()


def arguments_of(
    parser: argparse.ArgumentParser, *, decisions: int
) -> tuple[Size, int, argparse.Namespace]:
    """The size of a run, how many there are, and all that a script was given."""
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--decisions", type=int, default=decisions, help="in a round")
    parser.add_argument("--kills", type=int, default=100, help="in a round")
    parser.add_argument("--rounds", type=int, default=1, help="each on servers of its own")
    given = parser.parse_args()
    return Size(given.seed, given.processes, given.decisions, given.kills), given.rounds, given


def batched(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    """So many at a time."""
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def said(given: Work) -> str:
    """What a worker printed last."""
    path = given.journal.with_suffix(".said")
    return path.read_text(errors="replace")[-3000:] if path.exists() else "nothing was said"
