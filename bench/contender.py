"""What is measured: a contender prepares once, runs again and again, and closes."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

CONNECTIONS = 32
"""So many clients ask a database at once, each waiting for its answer."""
SESSIONS = 1_000
SESSIONS_MIN = 64
MERCHANTS = 16
AMOUNT_MICRO_USD = 10_000
LIMIT_MICRO_USD = 999_999_999_000_000
"""Of every window. It is never reached: a denial would be cheaper than what is measured."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What all contenders share. `size` scales sessions, prior payments and logs; 1 is published.

    `directory` is on the disk that is measured.
    """

    seed: int
    size: float
    directory: Path

    def scaled(self, count: int, at_least: int = 1) -> int:
        """`count` times `size`."""
        return max(at_least, round(count * self.size))

    @property
    def sessions(self) -> int:
        """Between how many sessions the requests are spread evenly."""
        return self.scaled(SESSIONS, SESSIONS_MIN)

    def draw(self, run: object) -> random.Random:
        """The same numbers for the same run, whoever asks."""
        return random.Random(f"{self.seed}/{run}")


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run did. Latencies are milliseconds from asking to the durable answer.

    `client_busy` is the share of one core that the load generator used: near 1, it would be what
    was measured.
    """

    count: int
    seconds: float
    latencies_ms: Sequence[float] = field(default=(), repr=False)
    client_busy: float | None = None


class Contender(ABC):
    """One thing to measure. `says` tells what it does, and what it does not."""

    name: ClassVar[str]
    says: ClassVar[str]
    unit: ClassVar[str] = "decisions/s"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.runs = 0

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run in this release; None if it can."""
        return None

    @abstractmethod
    def prepare(self) -> Mapping[str, str]:
        """Make everything that is not measured; returns versions and settings that matter."""

    @abstractmethod
    def run(self, seconds: float) -> Rate:
        """Work for about `seconds`; what has to be made before is not in the answer's seconds.

        Raises:
            AssertionError: it did not do what it is measured for.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind. Called once, also when `prepare` failed."""

    @classmethod
    def figure(cls, rate: Rate) -> float:
        """What a run is worth, in `unit`."""
        return rate.count / rate.seconds
