"""What the ledger knows of the chain's clock, and whether that is recent enough to decide by."""

from engine.clock import Clock
from engine.errors import Unavailable

CHAIN_SILENCE_MAX_MS = 300_000
"""After this long without reading the chain, sessions that live on it are not decided any more."""


class ChainWatch:
    """When the chain was last read to its newest block. May be used from any thread.

    Silence is measured with a stopwatch, not with a clock that somebody can set.
    """

    def __init__(self, stopwatch: Clock) -> None:
        self._stopwatch = stopwatch
        self._read_ms: int | None = None
        self._doubt: Unavailable | None = None
        self.time_ms = 0
        self.ever_read = False
        """Whether it was read since the start; until then nobody knows that the log is not old."""

    def seen(self, time_ms: int) -> None:
        """The chain was just read to its newest block, which is of this time."""
        self._read_ms = self._stopwatch()
        self._doubt = None
        self.ever_read = True
        self.reached(time_ms)

    def reached(self, time_ms: int) -> None:
        """The chain's own clock was at least here; it never goes back for us."""
        self.time_ms = max(self.time_ms, time_ms)

    def told(self, time_ms: int, read_ago_ms: int | None, doubt: Unavailable | None = None) -> None:
        """Another process says when it read the chain; None: it does not trust what it read."""
        self.reached(time_ms)
        self._doubt = doubt
        self._read_ms = None if read_ago_ms is None else self._stopwatch() - read_ago_ms
        self.ever_read = self.ever_read or read_ago_ms is not None

    def check(self, *, on_chain: bool) -> None:
        """Let nobody decide by what is known of the chain if that is too old.

        Raises:
            Unavailable: it was not read since the start, or not lately and the session lives on it;
                with the reason and the code of what made it doubtful, if that is known.
        """
        if self._doubt is not None and (on_chain or not self.ever_read):
            raise Unavailable(self._doubt.message, code=self._doubt.code)
        if not self.ever_read:
            raise Unavailable(
                "the chain has not been read since the start, so the log may be an old copy",
                code="chain_unavailable",
            )
        if on_chain and self.silent:
            raise Unavailable(
                "the chain has not been read lately, so a revocation could have been missed",
                code="chain_unavailable",
            )

    @property
    def doubt(self) -> Unavailable | None:
        """Why nothing known of the chain can be trusted, if that is so and known."""
        return self._doubt

    @property
    def read_ago_ms(self) -> int | None:
        """How long ago the chain was read; None if that does not count any more."""
        return None if self._read_ms is None else self._stopwatch() - self._read_ms

    def lost(self, doubt: Unavailable | None = None) -> None:
        """Nothing known of the chain can be trusted until it is read again, because of `doubt`."""
        self._read_ms = None
        self._doubt = doubt

    @property
    def silent(self) -> bool:
        """Whether too much could have happened on the chain since it was last read."""
        read_ago_ms = self.read_ago_ms
        return read_ago_ms is None or read_ago_ms > CHAIN_SILENCE_MAX_MS
