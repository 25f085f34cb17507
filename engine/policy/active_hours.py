"""When in a week a session pays: half-open ranges of whole minutes in UTC, the same every week.

hours = WeekHours([(DAY_MINUTES, DAY_MINUTES + 60)])  # Tuesday from 00:00 to just before 01:00
hours.opens_at(now_ms)
"""

from bisect import bisect_right
from collections.abc import Iterable

MINUTE_MS = 60_000
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
_WEEK_MS = WEEK_MINUTES * MINUTE_MS
_EPOCH_MS = 3 * DAY_MINUTES * MINUTE_MS  # 1 January 1970 was a Thursday; a week begins on Monday


class WeekHours:
    """A set of minutes of the week; minute 0 is Monday 00:00 UTC.

    `ranges` is its one form: `(from, until)` in order, with a minute or more between one and the
    next. It may be empty, and then nothing is ever open.
    """

    __slots__ = ("_starts_ms", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        merged: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            assert 0 <= start < end <= WEEK_MINUTES
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        self.ranges = tuple(merged)
        self._starts_ms = [start * MINUTE_MS for start, _ in merged]

    def opens_at(self, now_ms: int) -> int | None:
        """The first open instant from `now_ms` on: `now_ms` itself when it is open, None if never.

        Both are milliseconds since the epoch.
        """
        if not self.ranges:
            return None
        in_week_ms = (now_ms + _EPOCH_MS) % _WEEK_MS
        after = bisect_right(self._starts_ms, in_week_ms)
        if after and in_week_ms < self.ranges[after - 1][1] * MINUTE_MS:
            return now_ms
        if after == len(self.ranges):
            return now_ms - in_week_ms + _WEEK_MS + self._starts_ms[0]
        return now_ms - in_week_ms + self._starts_ms[after]

    def within(self, other: "WeekHours") -> bool:
        """Whether the other is open whenever this one is."""
        return all(
            any(outer[0] <= start and end <= outer[1] for outer in other.ranges)
            for start, end in self.ranges
        )

    def common(self, other: "WeekHours") -> "WeekHours":
        """When both are open."""
        pairs = ((max(a[0], b[0]), min(a[1], b[1])) for a in self.ranges for b in other.ranges)
        return WeekHours((start, end) for start, end in pairs if start < end)
