"""Places for a few at a time, so that nobody takes all of what others wait for as well."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from engine.errors import RateLimited


class Seats:
    """At most `most` at a time; `what` they are is told to whoever finds no place."""

    def __init__(self, what: str, most: int, *, retry_after_s: int) -> None:
        self._what = what
        self._most = most
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._taken: Counter[tuple[str, str]] = Counter()

    @contextlib.contextmanager
    def seat(self, *owners: tuple[str, str, int]) -> Iterator[None]:
        """Take one for as long as the block lasts. Each owner, such as `("key", id, 4)`, has so
        many of them at most.

        Raises:
            RateLimited: there is none left, for everybody or for one of these.
        """
        names = [("", ""), *((kind, name) for kind, name, _ in owners)]
        with self._lock:
            for kind, name, most in owners:
                if self._taken[kind, name] >= most:
                    raise self._full(f"{most} {self._what} of this {kind} at a time")
            if self._taken["", ""] >= self._most:
                raise self._full(f"{self._most} {self._what} at a time")
            self._taken.update(names)
        try:
            yield
        finally:
            with self._lock:
                self._taken.subtract(names)
                self._taken += Counter()  # forget who is gone

    def _full(self, message: str) -> RateLimited:
        return RateLimited(message, retry_after=self._retry_after_s)
