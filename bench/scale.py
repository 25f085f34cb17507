"""How much several processes decide together on one PostgreSQL, and what the sequencer takes.

    scripts/scale --seconds 8 --rounds 3

Each process has an engine and asks it in batches of 256. The processes pay from sessions of their
own, from the same sessions, or from sessions of their own under one budget of their workspace; the
rounds of all of these take turns. Then one process gives everything its place in the log. What is
printed is the table of docs/scaling.md.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.ours import BATCH_ASKS, HOLD_TTL_S, LIMITS, MEMO
from bench.postgres import SETTINGS as POSTGRES_SETTINGS
from engine.engine import Engine, open_engine
from engine.ledger.ask import ask
from engine.policy.budgets import BudgetLimits
from engine.policy.decision import PaymentRequest
from engine.settings import Settings
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.durability.processes import forked
from tests.ledger.oracle import query
from tests.servers import PostgresServer
from tests.world import USD, World

KEK = "the same for every server"
SESSIONS = 64
BUDGET = BudgetLimits(per_day=10**9 * USD)
OWN, SAME, BUDGETED = "sessions of its own", "the same sessions", "sessions under one budget"


@dataclass
class Line:
    """A row of the table: who pays from what, and what each round came to, decisions a second."""

    pays_from: str
    processes: int
    rates: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        least, most = min(self.rates), max(self.rates)
        middle = statistics.median(self.rates)
        spread = f"{least:,.0f} to {most:,.0f}"
        return f"| {self.pays_from} | {self.processes} | {middle:,.0f} | {spread} |"


def pay(settings: Settings, talk: Connection) -> None:
    """A process: told (sessions, run, seconds) it pays for so long and says how much it did."""
    engine = open_engine(settings)
    talk.send("open")
    while (told := talk.recv()) is not None:
        sessions, run, seconds = told
        started = time.perf_counter()
        count = _pay(engine, sessions, run, started + seconds)
        talk.send((count, time.perf_counter() - started))
    engine.close()


def _pay(engine: Engine, sessions: Sequence[str], run: str, until: float) -> int:
    usdc = engine.token("USDC", None)
    assert usdc is not None
    request = PaymentRequest(
        amount=USD, merchant="books", token=usdc.asset, chain=usdc.chain, token_priced=True
    )
    numbers = itertools.count()
    waiting: Any = None
    count = 0
    while time.perf_counter() < until:
        batch = [
            ask(sessions[n % len(sessions)], request, memo=MEMO, key=f"{run}-{n}", capture=False)
            for n in itertools.islice(numbers, BATCH_ASKS)
        ]
        handed_in = engine.ledger.authorise_many(batch)
        if waiting is not None:
            count += _allowed(waiting.result())
        waiting = handed_in
    return count + _allowed(waiting.result())


def _allowed(answers: Sequence[Any]) -> int:
    assert all(answer.state == "held" for answer in answers), answers[:1]
    return len(answers)


class Scale:
    """One database, one chain, and as many processes as the largest row has."""

    def __init__(self, anvil: AnvilWithContracts, url: str, directory: Path) -> None:
        self.anvil, self.url, self.directory = anvil, url, directory
        self.runs = itertools.count()

    def measure(self, processes: Sequence[int], seconds: float, rounds: int) -> list[Line]:
        """Every row; the rounds take turns."""
        given = {"database": self.url, "kek": KEK, "hold_ttl_s": HOLD_TTL_S}
        lines = [Line(OWN, count) for count in processes]
        lines += [Line(name, count) for name in (SAME, BUDGETED) for count in processes[1:]]
        with self.anvil.world(self.directory / "first", **given) as world, ExitStack() as opened:
            sessions = self._sessions(world, max(processes))
            parties = [self._party(opened, world, number) for number in range(max(processes))]
            for line in lines * (rounds + 1):
                rate = self._run(line, parties, sessions[line.pays_from], seconds)
                line.rates.append(rate)
            for party in parties:
                party.send(None)
            self.sequenced = self._sequence(world)
        for line in lines:
            del line.rates[0]  # what is done for the first time takes longer
        return lines

    def _sessions(self, world: World, most: int) -> dict[str, list[list[str]]]:
        world.engine.access.create_workspace("one", "one")
        world.engine.budgets.set("one", None, BUDGET, by="bench")

        def some(**changes: Any) -> list[str]:
            return [world.session(LIMITS, **changes).id for _ in range(SESSIONS)]

        return {
            OWN: [some() for _ in range(most)],
            SAME: [some()] * most,
            BUDGETED: [some(workspace="one") for _ in range(most)],
        }

    def _party(self, opened: ExitStack, world: World, number: int) -> Connection:
        settings = world.settings.model_copy(update={"data_dir": self.directory / f"{number}"})
        ours, theirs = forked().Pipe()
        process = forked().Process(target=pay, args=(settings, theirs), daemon=True)
        process.start()
        opened.callback(process.kill)
        assert ours.recv() == "open"
        return ours

    def _run(
        self,
        line: Line,
        parties: Sequence[Connection],
        sessions: Sequence[Sequence[str]],
        seconds: float,
    ) -> float:
        run = next(self.runs)
        for number in range(line.processes):
            parties[number].send((sessions[number], f"{run}-{number}", seconds))
        done = [parties[number].recv() for number in range(line.processes)]
        return float(sum(count for count, _ in done) / max(taken for _, taken in done))

    def _sequence(self, world: World) -> tuple[int, int, float]:
        [(batches,)] = query(self.url, "SELECT count(*) FROM log_batches WHERE first_leaf IS NULL")
        [(before,)] = query(self.url, "SELECT coalesce(max(first_leaf), 0) FROM log_batches")
        started = time.perf_counter()
        size = world.engine.lead.sequence()
        return size - before, batches, time.perf_counter() - started


def main() -> int:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description="Measure several processes on one PostgreSQL.")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args()
    with (
        PostgresServer(POSTGRES_SETTINGS) as postgres,
        postgres.database() as url,
        anvil_with_contracts() as anvil,
        tempfile.TemporaryDirectory(prefix="tallystick-scale-") as directory,
    ):
        scale = Scale(anvil, url, Path(directory))
        lines = scale.measure(sorted({1, *asked.processes}), asked.seconds, asked.rounds)
    say = sys.stdout.write
    say(f"{os.cpu_count()} cores, {asked.rounds} rounds of {asked.seconds:g} s\n\n")
    say("| each process pays from | processes | decisions/s | least to most |\n|---|---|---|---|\n")
    say("".join(f"{line}\n" for line in lines))
    records, batches, taken = scale.sequenced
    say(f"\n{records:,} records in {batches:,} batches got their place in {taken:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
