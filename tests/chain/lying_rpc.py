"""Lies to an indexer about a chain, and compares all that it stores with a reading of the truth.

    scripts/lying-rpc --seed 7 --rounds 270

Each round tells one of 22 lies, always or to one answer in twenty, to an indexer that reads the
chain from nothing, reads on, or has to follow a reorganisation; some rounds tell all of them, to
one answer in a hundred. While it is lied to, what it stores must be the truth up to some block, or
what it had before; a lie that goes on and cannot be healed must have stopped it. Once the endpoint
tells the truth, everything must be stored, row for row.

With as many rounds as there are cases (135), each is there once.
"""

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine.errors import Unavailable
from tests.chain import rpc_proxy as lies
from tests.chain.killed_reader import drop
from tests.chain.lied import (
    CHANGED,
    EVERY,
    HEALED,
    STOPS,
    Lied,
    happen,
    lying_about,
    reading_through,
)

SITUATIONS = ("from nothing", "further", "reorganised")
ALWAYS, NOW_AND_THEN, SELDOM = 1.0, 0.05, 0.01
BLOCKS_MAX = 12
DEPTH_MAX = 10
BLOCKS_AT_ONCE = (1, 4, 500)


class Gap(AssertionError):
    """What is stored is not the truth up to a block, or not all of it in the end."""


@dataclass(frozen=True)
class Case:
    """Which lies are told, to what share of the answers, and to whom."""

    told: tuple[Any, ...]
    probability: float
    situation: str

    def __str__(self) -> str:
        name = self.told[0].__name__ if len(self.told) == 1 else "all lies"
        return f"{name} at {self.probability:.0%}, {self.situation}"


def cases() -> list[Case]:
    """Every one there is."""
    alone = [(lie,) for lie in EVERY]
    found = [
        Case(told, probability, situation)
        for told, probability, situation in itertools.product(
            alone, (ALWAYS, NOW_AND_THEN), SITUATIONS
        )
    ]
    # Waiting for what does not come, again and again, would be most of the time.
    together = tuple(lie for lie in EVERY if lie is not lies.silence)
    return found + [Case(together, SELDOM, situation) for situation in SITUATIONS]


def planned(seed: int, rounds: int) -> list[Case]:
    """Every case once before one comes twice."""
    draw, plan = random.Random(seed), []
    while len(plan) < rounds:
        plan += draw.sample(cases(), k=len(cases()))
    return plan[:rounds]


class Rounds:
    """One chain, one that is lied to about it, and one that is not. `figures` counts."""

    def __init__(self, lied: Lied, draw: random.Random) -> None:
        self._lied = lied
        self._draw = draw
        self.figures: Counter[str] = Counter()

    def round(self, case: Case) -> None:
        """Raises `Gap`; afterwards the chain is as it was."""
        before = self._lied.anvil.rpc("evm_snapshot")
        try:
            with pytest.MonkeyPatch.context() as patched:
                at_once = self._draw.choice(BLOCKS_AT_ONCE)
                patched.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", at_once)
                self._round(case)
        except AssertionError as error:
            raise Gap(f"{case}: {error}") from error
        finally:
            self._lied.anvil.rpc("evm_revert", before)

    def _round(self, case: Case) -> None:
        lied = self._lied
        lied.begin_anew()
        if case.situation == "reorganised":
            happen(lied.anvil, DEPTH_MAX)  # Anvil goes back to no block that it replaced
        if case.situation != "from nothing":
            lied.follower.read()
        if case.situation == "reorganised":
            lied.anvil.rpc("anvil_reorg", self._draw.randint(1, DEPTH_MAX), [])
        if case.situation != "from nothing":
            happen(lied.anvil, self._draw.randint(1, BLOCKS_MAX))
        lied.before = lied.follower.stored()
        if len(case.told) > 1:
            with lied.proxy.lying(*case.told, probability=case.probability):
                failure = lied.read()
        else:
            with lied.told(case.told[0], probability=case.probability):
                failure = lied.read()
        lied.has_no_gap()
        self._judge(case, failure)
        for _ in range(3):  # an endpoint that failed is asked again
            if (failure := lied.read()) is None:
                break
        if failure is not None:
            raise Gap(f"the truth is not believed: {failure}")
        lied.is_told_in_full()
        self.figures["rounds"] += 1
        self.figures["lies told"] += sum(lied.proxy.told.values())
        self.figures["events compared in the end"] += len(lied.follower.stored()[0])
        self.figures[f"rounds {case.situation}"] += 1

    def _judge(self, case: Case, failure: Exception | None) -> None:
        """A lie that is always told stops who reads, or is healed."""
        self.figures["readings that a lie stopped"] += failure is not None
        if failure is not None and not isinstance(failure, Unavailable):
            raise Gap(f"another failure: {failure!r}")
        if case.probability < ALWAYS:
            if failure is not None:
                raise Gap(f"it does not come round: {failure}")
            return
        [lie] = case.told
        told = self._lied.proxy.told[lie.__name__]
        if lie in HEALED:
            if failure is not None:
                raise Gap(f"it is not healed: {failure}")
            self._lied.is_told_in_full()
        elif (lie in STOPS or lie in CHANGED) and told and failure is None:
            raise Gap("it is believed")


def run(seed: int, plan: Sequence[Case]) -> Counter[str]:
    """Go through all rounds of a plan; returns the figures.

    Raises:
        Gap: naming the round.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tallystick-lying-rpc-") as directory,
        lying_about() as anvil,
        reading_through(anvil, Path(directory), seed) as lied,
    ):
        made = Rounds(lied, random.Random(seed))
        for number, case in enumerate(plan):
            try:
                made.round(case)
            except Gap as gap:
                raise Gap(f"seed {seed}, round {number}, {gap}") from gap
        return made.figures


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 if there was a gap."""
    parser = argparse.ArgumentParser(
        prog="scripts/lying-rpc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--rounds", type=int, default=len(cases()), help="in all (%(default)s)")
    asked = parser.parse_args(arguments)
    structlog.configure(processors=[drop])
    started = time.monotonic()
    try:
        figures = run(asked.seed, planned(asked.seed, asked.rounds))
    except Gap as gap:
        sys.stdout.write(f"{gap}\n")
        return 1
    for name, count in sorted(figures.items()):
        sys.stdout.write(f"{count:>10,}  {name}\n")
    sys.stdout.write(f"no gap in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
