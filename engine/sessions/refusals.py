"""What the chain refused is left alone for a while, longer each time: only somebody's help, or
somebody's change of mind, makes it take that, and others wait for their turn."""

import time

REFUSED_WAIT_S = 10
REFUSED_WAIT_MAX_S = 3_600


class Refusals:
    """Transactions that were refused, by the session they are about and what they do."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], tuple[int, float]] = {}
        """How often in a row, and until when it is left alone, by the machine's stopwatch."""
        self._reverted: set[tuple[str, str]] = set()

    def note(self, session_id: str, action: str) -> None:
        """It was refused, once more."""
        times, _ = self._refused.get((session_id, action), (0, 0.0))
        wait_s = min(REFUSED_WAIT_S * 2 ** min(times, 30), REFUSED_WAIT_MAX_S)
        self._refused[session_id, action] = times + 1, time.monotonic() + wait_s

    def reverted(self, session_id: str, action: str) -> None:
        """It was mined and reverted, and that was paid for: once it is tried again at once, since a
        reorganisation can do that to anybody."""
        if (session_id, action) in self._reverted:
            self.note(session_id, action)
        self._reverted.add((session_id, action))

    def waiting(self, action: str) -> list[str]:
        """The sessions that are left alone for now."""
        now_s = time.monotonic()
        forgotten_s = now_s - 2 * REFUSED_WAIT_MAX_S
        self._refused = {
            key: refused for key, refused in self._refused.items() if refused[1] > forgotten_s
        }
        return [
            session_id
            for (session_id, refused), (_, until_s) in self._refused.items()
            if refused == action and now_s < until_s
        ]
