"""Wall time as integer milliseconds since the epoch, UTC. The only caller of the system clock."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


def stopwatch() -> int:
    """Milliseconds that nobody can set back or forward; only differences mean anything."""
    return time.monotonic_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to, for tests and simulations."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, by_ms: int) -> None:
        self.now_ms += by_ms
