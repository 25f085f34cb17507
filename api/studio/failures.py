"""Failed sign-ins and set-up tokens, counted by where they come from, so that guessing costs time.

What is counted is kept in this process for a minute. A passkey that somebody has is counted apart:
whoever guesses behind the same proxy locks nobody out.
"""

import threading
from collections import deque

from engine.errors import RateLimited

FAILURES_MAX = 10
"""So many may fail in a minute."""
WINDOW_MS = 60_000
SOURCES_MAX = 4_096
"""So many sources are remembered; then the one that was silent for longest is forgotten."""


class Failures:
    """When whose attempts failed. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: dict[str, deque[int]] = {}

    def check(self, source: str, now_ms: int) -> None:
        """May there be another attempt?

        Raises:
            RateLimited: too many failed in the last minute.
        """
        with self._lock:
            failed = self._recent(source, now_ms)
            if len(failed) < FAILURES_MAX:
                return
            left_ms = failed[0] + WINDOW_MS - now_ms
        raise RateLimited(
            "too many attempts failed; wait a little", retry_after=max(1, -(-left_ms // 1000))
        )

    def note(self, source: str, now_ms: int) -> None:
        """One failed."""
        with self._lock:
            failed = self._recent(source, now_ms)
            failed.append(now_ms)
            self._failed.pop(source, None)
            self._failed[source] = failed
            if len(self._failed) > SOURCES_MAX:
                del self._failed[next(iter(self._failed))]

    def _recent(self, source: str, now_ms: int) -> deque[int]:
        failed = self._failed.get(source, deque())
        while failed and now_ms - failed[0] >= WINDOW_MS:
            failed.popleft()
        return failed
