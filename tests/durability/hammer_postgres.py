"""Many processes pay on one PostgreSQL and die by SIGKILL; then every answer is checked.

    scripts/hammer-postgres --seed 7 --processes 8 --decisions 100000 --kills 100

In the end: no answer was lost or changed; by the records, which are read by an oracle that shares
no code with the engine, every decision was the only right one at its instant, so that no limit was
exceeded and none was left unused that somebody asked for; the log has no gap and the roots that
were signed; and the evidence verifies.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.audit import rfc6962
from tests.durability.journals import Journals
from tests.durability.pools import Pool, SharedRecords, read_log
from tests.durability.processes import forked
from tests.durability.worker import USD, Question, Target, Work, submit, told, work
from tests.ledger.oracle import query, require
from tests.ledger.served import verify
from tests.servers import PostgresServer
from tests.world import WORKSPACE, World

KEK = "the same for every server"
HOLD_TTL_S = 2
ERA_DECISIONS = 1_000
KILLED_WHILE_STARTING = 0.15
PATIENCE_S = 120
ASKED_AGAIN_MAX = 20_000
ASKED_AT_ONCE = 512
POLL_S = 0.02

LOOSE = Limits(28 * USD, 1_000 * USD, 900 * USD, None, 25 * USD)
PARENT = Limits(None, 600 * USD, None, 700 * USD, None)
CHILD = Limits(None, 500 * USD, None, 600 * USD, None)
BY_DOLLARS = Limits(None, None, 40 * USD, None, None)
AGENT_USD, WORKSPACE_USD = 700, 60


class Hammer:
    """One run over a database and a chain that belong to it."""

    def __init__(
        self,
        directory: Path,
        postgres: PostgresServer,
        url: str,
        anvil: AnvilWithContracts,
        *,
        seed: int,
        processes: int,
        decisions: int,
        kills: int,
        server_kills: int,
    ) -> None:
        self.directory, self.postgres, self.url, self.anvil = directory, postgres, url, anvil
        self.seed, self.processes, self.decisions = seed, processes, decisions
        self.kills, self.server_kills = kills, server_kills
        self.random = random.Random(seed)
        self.journals = Journals(directory)
        self.figures = self.journals.figures
        self.pools: dict[str, list[Pool]] = {}
        self.exact: list[str] = []
        self.eras: list[tuple[Target, ...]] = []
        self.always: list[Target] = []
        self.board = RawArray("i", [0])
        self.workers: dict[int, tuple[Work, BaseProcess]] = {}

    def run(self) -> dict[str, Any]:
        """All of it; returns the figures.

        Raises:
            Broken: naming the first promise that does not hold.
        """
        started = time.monotonic()
        with self.world("first") as world:
            self.create(world)
            self.settings = world.settings
        try:
            loaded = time.monotonic()
            for number in range(self.processes):
                self.start(number, 0)
            self.load_and_kill()
            self.stop()
        finally:
            for _, process in self.workers.values():
                process.kill()
        self.figures["seconds of load"] = round(time.monotonic() - loaded)
        with self.world("last") as world:
            self.judge(world)
        self.figures["seconds"] = round(time.monotonic() - started)
        return {
            "seed": self.seed,
            "processes": self.processes,
            **dict(sorted(self.figures.items())),
        }

    def world(self, name: str) -> Any:
        """An engine of our own."""
        directory = self.directory / name
        return self.anvil.world(
            directory,
            database=self.url,
            kek=KEK,
            hold_ttl_s=HOLD_TTL_S,
            poll_interval_ms=50,
            anchor_interval_s=1,
        )

    # The sessions

    def create(self, world: World) -> None:
        """The sessions of every era, and those on the chain."""
        for _ in range(2):
            view = world.session(Limits(None, 10**6 * USD, None, None, None), mint_pkp=True)
            self.always.append(self.target(view))
        for era in range(-(-self.decisions // ERA_DECISIONS)):
            self.eras.append(tuple(self.create_era(world, era)))

    def create_era(self, world: World, era: int) -> list[Target]:
        """Sessions of their own, a family, two of one agent, and two of one workspace."""
        engine = world.engine
        parent = world.session(PARENT)
        narrower = {"parent_id": parent.id, "duration_ms": 23 * 3_600_000}
        children = [world.session(CHILD, **narrower) for _ in range(2)]
        family = Pool("ancestor_budget", PARENT.per_day or 0)
        agent_id = f"agent-{era}"
        engine.agents.register(WORKSPACE, agent_id, None)
        limits = BudgetLimits(per_day=AGENT_USD * USD, lifetime=2 * AGENT_USD * USD)
        engine.budgets.set(WORKSPACE, agent_id, limits, by="test")
        agents = Pool("agent_budget", AGENT_USD * USD)
        workspace = f"workspace-{era}"
        engine.access.create_workspace(workspace, workspace)
        engine.budgets.set(workspace, None, BudgetLimits(per_week=WORKSPACE_USD * USD), by="test")
        theirs = Pool("workspace_budget", WORKSPACE_USD * USD)
        alone = [world.session(BY_DOLLARS), world.session(LOOSE)]
        of_agent = [world.session(LOOSE, agent_id=agent_id) for _ in range(2)]
        of_workspace = [world.session(BY_DOLLARS, workspace=workspace) for _ in range(2)]
        for pool, views in (
            (family, [parent, *children]),
            (agents, of_agent),
            (theirs, of_workspace),
        ):
            for view in views:
                self.pools.setdefault(view.id, []).append(pool)
        dollars = [alone[0], *of_workspace]
        views = [parent, *children, *alone, *of_agent, *of_workspace]
        return [self.target(view, by_dollars=view in dollars) for view in views]

    def target(self, view: Any, *, by_dollars: bool = False) -> Target:
        """As the workers are told of a session."""
        return Target(view.id, view.workspace_id, by_dollars)

    # The workers

    def start(self, number: int, life: int) -> None:
        """Begin a life of a worker."""
        settings = self.settings.model_copy(update={"data_dir": self.directory / f"{number}"})
        given = Work(
            number,
            life,
            self.seed,
            settings,
            self.directory,
            tuple(self.eras),
            tuple(self.always),
            self.board,
        )
        process = forked().Process(target=work, args=(given,), daemon=True)
        process.start()
        self.workers[number] = given, process

    def load_and_kill(self) -> None:
        """Let them pay, and kill one after the other, and now and then the database."""
        killed = servers = 0
        heard, since = 0, time.monotonic()
        while True:
            answers = self.journals.follow()
            if answers > heard:
                heard, since = answers, time.monotonic()
            require(time.monotonic() - since < PATIENCE_S, "answers keep coming")
            if answers >= self.decisions and killed >= self.kills and servers >= self.server_kills:
                return
            self.board[0] = min(answers // ERA_DECISIONS, len(self.eras) - 1)
            share = min(1.0, answers / self.decisions)
            if killed < self.kills and share * (self.kills + 1) > killed:
                killed += self.kill_one()
            if servers < self.server_kills and share * (self.server_kills + 1) > servers + 0.5:
                self.kill_server()
                servers += 1
            for number, (given, process) in self.workers.items():
                require(process.exitcode is None, f"worker {number} ended: {said(given)}")
            time.sleep(POLL_S)

    def kill_one(self) -> int:
        """Kill a worker that has paid in this life, whatever it does; returns whether one was."""
        paying = [
            number
            for number, (given, _) in self.workers.items()
            if self.journals.lives[given.journal.stem]
        ]
        if not paying:
            return 0
        number = self.random.choice(paying)
        time.sleep(self.random.uniform(0, POLL_S))
        self.end_life(number)
        while self.random.random() < KILLED_WHILE_STARTING:
            time.sleep(self.random.uniform(0, 1.5))
            self.end_life(number)
            self.figures["kills while starting"] += 1
        self.figures["kills"] += 1
        return 1

    def end_life(self, number: int) -> None:
        """SIGKILL, and a new life."""
        given, process = self.workers[number]
        require(process.exitcode is None, f"worker {number} ended: {said(given)}")
        process.kill()
        process.join()
        self.start(number, given.life + 1)

    def kill_server(self) -> None:
        """SIGKILL the postmaster; its backends end with it."""
        self.postgres.kill()
        time.sleep(self.random.uniform(0, 0.5))
        self.postgres.start()
        self.figures["kills of the database"] += 1

    def stop(self) -> None:
        """Let everyone finish, with an answer to everything."""
        self.board[0] = -1
        for given, process in self.workers.values():
            process.join(PATIENCE_S)
            require(process.exitcode == 0, f"worker {given.number} ended: {said(given)}")

    # The checks

    def judge(self, world: World) -> None:
        """Everything that must hold once nobody pays any more."""
        held = "SELECT count(*) FROM decisions WHERE state = 'held'"
        tick_until(world, lambda: query(self.url, held) == [(0,)])
        self.journals.follow()
        self.ask_again(world)
        world.engine.lead.sequence()
        records = SharedRecords(self.pools)
        records.feed(read_log(self.url))
        self.journals.check(records)
        dead = sum(known.firsts == 0 for known in self.journals.known.values())
        self.figures["decided by a process that died before it said so"] = dead
        self.journals.check_keys(self.url)
        require(query(self.url, "SELECT count(*) FROM records") == [(len(records.leaves),)], "all")
        self.check_exact(records)
        for session, budget in records.budgets.items():
            if query(self.url, "SELECT 1 FROM sessions WHERE id = ?", session):
                left = world.engine.ledger.remaining(session).result()
                for window, expected in budget.remaining(0).items():
                    require(getattr(left, window) == expected, f"{session}: {window} {left}")
        self.check_log(world, records)
        self.figures["records"] = len(records.leaves)

    def ask_again(self, world: World) -> None:
        """What nobody heard an answer to has one by its key, and old answers are as they were."""
        unheard = self.journals.unanswered()
        answered = [known.question for known in self.journals.known.values() if known.answer]
        some = self.random.sample(answered, min(len(answered), ASKED_AGAIN_MAX))
        self.figures["never answered, asked by another"] = len(unheard)
        heard = {asked.key for asked in some}
        for batch in batched(unheard + some, ASKED_AT_ONCE):
            for asked, answer in [(asked, submit(world.engine, asked)) for asked in batch]:
                payment = answer.result()
                require(payment.replayed or asked.key not in heard, f"{asked.key} is forgotten")
                self.journals.heard(asked.key, told(payment))

    def check_exact(self, records: SharedRecords) -> None:
        """Where more dollars were asked for, one by one, than allowed: all that is allowed."""
        asked: dict[int, int] = {}
        for known in self.journals.known.values():
            for pool in self.pools.get(known.question.session, ()):
                if pool.rule == "workspace_budget":
                    asked[id(pool)] = asked.get(id(pool), 0) + known.question.amount
        for pool in {id(pool): pool for pools in self.pools.values() for pool in pools}.values():
            if asked.get(id(pool), 0) >= pool.limit:
                require(pool.used == pool.limit, f"{pool.used} of {pool.limit} were approved")
                self.figures["budgets used up exactly"] += 1
        for era in self.eras:
            session = next(target.session for target in era if target.by_dollars)
            wanted = sum(
                known.question.amount
                for known in self.journals.known.values()
                if known.question.session == session
            )
            budget = records.budgets[session]
            limit = budget.limits["per_week"]
            if limit is not None and wanted >= limit:
                require(budget.remaining(0)["per_week"] == 0, f"{session} is used up")
                self.figures["sessions used up exactly"] += 1

    def check_log(self, world: World, records: SharedRecords) -> None:
        """Every signed root is that of the records, and the evidence verifies."""
        anchor = world.engine.anchor()
        require(anchor is not None and anchor.size == len(records.leaves), "all is anchored")
        tick_until(world, lambda: world.engine.lead.anchorer.latest().state == "final")
        subtrees = rfc6962.subtrees(records.leaves)
        checkpoints = query(self.url, "SELECT size, root FROM checkpoints")
        for size, root in checkpoints:
            require(rfc6962.root(subtrees, size) == root, f"the root at size {size} is another")
        self.figures["checkpoints"] = len(checkpoints)
        server: Any = SimpleNamespace(
            rpc=self.anvil.process.url, registry=self.anvil.deployed.registry
        )
        for target in self.always:
            file = self.directory / f"{target.session}.json"
            file.write_bytes(world.engine.evidence(WORKSPACE, target.session))
            require(verify(file, server) == 0, "the evidence is verified")
            self.figures["evidence files verified"] += 1


def batched(questions: list[Question], size: int) -> Iterator[list[Question]]:
    """So many at a time."""
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def said(given: Work) -> str:
    """What a worker printed last."""
    path = given.journal.with_suffix(".said")
    return path.read_text(errors="replace")[-3000:] if path.exists() else "nothing was said"


def hammer(directory: Path, *, seed: int, **options: int) -> dict[str, Any]:
    """A run in `directory`, on servers of its own."""
    with ExitStack() as opened:
        postgres = opened.enter_context(PostgresServer())
        url = opened.enter_context(postgres.database())
        anvil = opened.enter_context(anvil_with_contracts())
        return Hammer(directory, postgres, url, anvil, seed=seed, **options).run()


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Kill paying processes that share a database.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--server-kills", type=int, default=0)
    arguments = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {arguments.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="tallystick-hammer-") as directory:
        figures = hammer(Path(directory), **vars(arguments))
    say(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
