"""How much several processes decide together on one PostgreSQL, and what the sequencer takes.

    scripts/scale --seconds 8 --rounds 3

Each process has an engine and asks it in batches of 256. The processes pay from sessions of their
own, from the same sessions, or from sessions of their own under one budget of their workspace; the
rounds of all of these take turns. Then one process gives everything its place in the log. What is
printed is the table of docs/scaling.md.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contender import Workload
from bench.ours import LIMITS
from bench.parties import Parties
from engine.policy.budgets import BudgetLimits
from tests.ledger.oracle import query
from tests.world import USD

SEED = 1
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


def measure(parties: Parties, processes: Sequence[int], seconds: float, rounds: int) -> list[Line]:
    """Every row; the rounds take turns."""
    lines = [Line(OWN, count) for count in processes]
    lines += [Line(name, count) for name in (SAME, BUDGETED) for count in processes[1:]]
    sessions = _sessions(parties, max(processes))
    for run, line in enumerate(lines * (rounds + 1)):
        rate = parties.pay(sessions[line.pays_from][: line.processes], run, seconds)
        line.rates.append(rate.count / rate.seconds)
    for line in lines:
        del line.rates[0]  # what is done for the first time takes longer
    return lines


def _sessions(parties: Parties, most: int) -> dict[str, list[list[str]]]:
    world = parties.world
    world.engine.access.create_workspace("one", "one")
    world.engine.budgets.set("one", None, BUDGET, by="bench")

    def some(**changes: Any) -> list[str]:
        return [world.session(LIMITS, **changes).id for _ in range(SESSIONS)]

    return {
        OWN: [some() for _ in range(most)],
        SAME: [some()] * most,
        BUDGETED: [some(workspace="one") for _ in range(most)],
    }


def sequence(parties: Parties) -> tuple[int, int, float]:
    """Give everything its place in the log: how many records, in how many batches, and seconds."""
    url = parties.database
    [(batches,)] = query(url, "SELECT count(*) FROM log_batches WHERE first_leaf IS NULL")
    [(before,)] = query(url, "SELECT coalesce(max(first_leaf), 0) FROM log_batches")
    started = time.perf_counter()
    size = parties.world.engine.lead.sequence()
    return size - before, batches, time.perf_counter() - started


def main() -> int:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description="Measure several processes on one PostgreSQL.")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args()
    processes = sorted({1, *asked.processes})
    with tempfile.TemporaryDirectory(prefix="tallystick-scale-") as directory:
        workload = Workload(SEED, 1, Path(directory))
        with closing(Parties(workload, max(processes))) as parties:
            lines = measure(parties, processes, asked.seconds, asked.rounds)
            records, batches, taken = sequence(parties)
    say = sys.stdout.write
    say(f"{os.cpu_count()} cores, {asked.rounds} rounds of {asked.seconds:g} s\n\n")
    say("| each process pays from | processes | decisions/s | least to most |\n|---|---|---|---|\n")
    say("".join(f"{line}\n" for line in lines))
    say(f"\n{records:,} records in {batches:,} batches got their place in {taken:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
