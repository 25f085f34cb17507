"""Lets the contenders take turns, round by round, so that a slow minute strikes all of them."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.apart import Apart, ContenderFailed
from bench.contender import Contender, Workload

WARM_UP_SHARE = 0.2
"""Each contender first runs for so much of a turn, which is not counted."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did in one round. Latencies are None where none were taken."""

    figure: float
    count: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    client_busy: float | None


@dataclass(slots=True)
class Measured:
    """What is known of one contender; one with a `fault` has no turns."""

    kind: type[Contender]
    prepared: Mapping[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    fault: str | None = None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many percent of all do not exceed (nearest rank); None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def measure(
    kinds: Sequence[type[Contender]],
    workload: Workload,
    *,
    seconds: float,
    rounds: int,
    say: Callable[[str], None],
) -> list[Measured]:
    """Prepare all, then A, B, C, A, B, C, …

    A contender that fails once is out: its other turns would be of another workload.
    """
    measured = [Measured(kind) for kind in kinds]
    processes: dict[type[Contender], Apart] = {}

    def prepare(one: Measured) -> None:
        process = processes[one.kind] = Apart(one.kind, workload)
        one.prepared = process.prepare()
        process.run(seconds * WARM_UP_SHARE)
        say(f"{one.kind.name} is prepared")

    def take_turn(one: Measured) -> None:
        os.sync()  # what others have left to write is not to be written in this turn
        rate = processes[one.kind].run(seconds)
        turn = Turn(
            one.kind.figure(rate),
            rate.count,
            rate.seconds,
            percentile(rate.latencies_ms, 50),
            percentile(rate.latencies_ms, 99),
            rate.client_busy,
        )
        one.turns.append(turn)
        say(f"{one.kind.name}: {turn.figure:.6g} {one.kind.unit}")

    try:
        for number, step in enumerate((prepare, *[take_turn] * rounds)):
            say(f"round {number} of {rounds}" if number else "preparing")
            for one in measured:
                if one.fault is None:
                    try:
                        step(one)
                    except ContenderFailed as error:
                        one.fault = str(error)
                        one.turns.clear()
                        processes[one.kind].close()
                        say(one.fault)
    finally:
        for process in processes.values():
            process.close()
    return measured
