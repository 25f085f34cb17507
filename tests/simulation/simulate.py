"""Simulates histories of the engine from a seed, and audits every step of them.

    scripts/simulate --seed 7 --decisions 1000000
    scripts/simulate --seed 7 --history 3 --steps 41      one history again, up to one step
    scripts/simulate --seed 7 --canary window-edge        plant a fault, which has to be found

The same seed and size give the same digest of all answers and records, on any number of processes.
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from tests.simulation.canaries import CANARIES
from tests.simulation.history import History, Outcome, Stopped
from tests.simulation.installation import scratch, simulated
from tests.simulation.workload import TEMPERS


@dataclass
class Result:
    """What a run came to: the figures of all histories, their digest, or how one of them failed."""

    digest: str = ""
    figures: Counter[str] = field(default_factory=Counter)
    failed: int | None = None
    """The number of the history that failed."""
    stopped: Stopped | None = None


def plan(decisions: int) -> Iterator[tuple[int, int]]:
    """(number, decisions) of the histories of a run."""
    number = 0
    while decisions > 0:
        part = min(decisions, TEMPERS[number % len(TEMPERS)].decisions)
        yield number, part
        number, decisions = number + 1, decisions - part


def live(
    seed: int, number: int, decisions: int, *, steps: int | None = None, canary: str | None = None
) -> Outcome | Stopped:
    """Run one history in a directory of its own."""
    planted = CANARIES[canary].plant() if canary is not None else nullcontext()
    try:
        with simulated(), planted, scratch() as directory:
            return History(directory, seed, number).run(decisions, steps)
    except Stopped as stopped:
        return stopped


def simulate(seed: int, decisions: int, *, canary: str | None = None, processes: int = 1) -> Result:
    """Run as many histories as it takes; the first that fails ends the run."""
    result, digest = Result(), hashlib.sha256()
    with _Runs(seed, canary, processes) as runs:
        for (number, _), outcome in runs.of(list(plan(decisions))):
            if isinstance(outcome, Stopped):
                result.failed, result.stopped = number, outcome
                return result
            result.figures.update(outcome.figures)
            result.figures["histories"] += 1
            digest.update(bytes.fromhex(outcome.digest))
    result.digest = digest.hexdigest()
    return result


def shortest(seed: int, number: int, steps: int, *, canary: str | None = None) -> int:
    """The fewest steps of a history after which it fails, by bisection; `steps` do."""
    passes, fails = -1, steps
    while fails - passes > 1:
        middle = (passes + fails) // 2
        if isinstance(live(seed, number, 0, steps=middle, canary=canary), Stopped):
            fails = middle
        else:
            passes = middle
    return fails


class _Runs:
    """Histories one after another, or in several processes; their outcomes come in order."""

    def __init__(self, seed: int, canary: str | None, processes: int) -> None:
        self._live = partial(_live, seed, canary)
        context = multiprocessing.get_context("spawn")
        self._pool = context.Pool(processes) if processes > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def of(
        self, histories: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], Outcome | Stopped]]:
        run = map if self._pool is None else self._pool.imap
        return zip(histories, run(self._live, histories), strict=True)


def _live(seed: int, canary: str | None, history: tuple[int, int]) -> Outcome | Stopped:
    return live(seed, *history, canary=canary)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 if something was found."""
    asked = _arguments(arguments)
    started = time.monotonic()
    _say(f"seed {asked.seed}")
    if asked.history is not None:
        outcome = live(
            asked.seed, asked.history, asked.decisions, steps=asked.steps, canary=asked.canary
        )
        if isinstance(outcome, Stopped):
            _say(f"history {asked.history}: {outcome}")
            return 1
        result = Result(outcome.digest, outcome.figures)
    else:
        result = simulate(
            asked.seed, asked.decisions, canary=asked.canary, processes=asked.processes
        )
    if result.stopped is not None and result.failed is not None:
        return _say_failure(asked, result.failed, result.stopped)
    for name, count in sorted(result.figures.items()):
        _say(f"{count:>12,}  {name}")
    _say(f"digest {result.digest}")
    _say(f"nothing was found in {time.monotonic() - started:.0f} s")
    return 0


def _say_failure(asked: argparse.Namespace, number: int, stopped: Stopped) -> int:
    _say(f"history {number}: {stopped}")
    fewest = shortest(asked.seed, number, stopped.step, canary=asked.canary)
    canary = f" --canary {asked.canary}" if asked.canary else ""
    _say(
        f"the shortest prefix that fails has {fewest} steps: "
        f"scripts/simulate --seed {asked.seed} --history {number} --steps {fewest}{canary}"
    )
    return 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--decisions", type=int, default=20_000, help="in all (%(default)s)")
    parser.add_argument("--history", type=int, metavar="N", help="only this one")
    parser.add_argument("--steps", type=int, metavar="K", help="of --history: end after so many")
    parser.add_argument("--canary", choices=sorted(CANARIES), metavar="NAME", help="%(choices)s")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="at once (%(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
