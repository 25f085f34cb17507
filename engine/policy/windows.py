"""What one session has used in its rolling windows, exactly.

For a window of length W, an entry decided at `d` is inside at instant `t` if and only if
`t - W < d <= t`: it counts from the millisecond it was decided and has left at `d + W`.

All windows share one sequence of entries in the order of decision. Each window keeps a running sum
and the index of the entry that leaves it next, so a decision never sums history again; entries that
left the longest window are dropped.

    windows = RollingWindows()
    hold = windows.add(now_ms, 50_000_000)
    windows.reduce(hold, 20_000_000)  # captured below its hold: the rest is free at once
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

from engine.policy.limits import DAY_MS, MONTH_MS, WEEK_MS
from engine.policy.prefix_sums import PrefixSums

_NEVER_MS = 1 << 62


class Entry:
    """One allowed amount: when it was decided, and how much of it (micro-USD) still counts.

    Only who counts it may change it. `position` numbers the entries of one `RollingWindows`;
    `parts` are the same payment as others count it, each with its entry there.
    """

    __slots__ = ("amount", "decided_ms", "parts", "position")

    def __init__(self, decided_ms: int, amount: int, position: int) -> None:
        self.decided_ms = decided_ms
        self.amount = amount
        self.position = position
        self.parts: tuple[tuple[Counter, Entry], ...] = ()


class Counter(Protocol):
    """Whoever counts amounts and can count less of them."""

    def reduce(self, entry: Entry, to_amount: int) -> None:
        """Count only `to_amount` of what the entry is for."""


class RollingWindows:
    """The rolling windows of one session; `lengths_ms` ascends.

    Time never runs backwards: each `now_ms` and `decided_ms` is at or after the one before, of
    whichever method. Iterating yields the entries still inside the longest window, oldest first;
    adding their `(decided_ms, amount)` in that order to a new object rebuilds this one.
    """

    __slots__ = (
        "_dropped",
        "_entries",
        "_left",
        "_next_exit_ms",
        "_now_ms",
        "_sums",
        "_used",
        "lengths_ms",
    )

    def __init__(self, lengths_ms: tuple[int, ...] = (DAY_MS, WEEK_MS, MONTH_MS)) -> None:
        assert all(shorter < longer for shorter, longer in pairwise((0, *lengths_ms)))
        self.lengths_ms = lengths_ms
        self._entries: list[Entry] = []
        self._sums = PrefixSums()
        self._dropped = 0  # entries that are no longer in _entries
        self._left = [0] * len(lengths_ms)  # per window: how many of _entries have left it
        self._used = [0] * len(lengths_ms)  # per window: the sum of the others
        self._now_ms = 0
        self._next_exit_ms = _NEVER_MS  # nothing leaves any window before this instant

    def advance(self, now_ms: int) -> None:
        """Let everything leave that is outside a window at `now_ms`."""
        assert now_ms >= self._now_ms, "time never runs backwards"
        self._now_ms = now_ms
        if now_ms >= self._next_exit_ms:
            self._leave()

    def used(self, now_ms: int) -> tuple[int, ...]:
        """Micro-USD inside each window at `now_ms`, in the order of `lengths_ms`."""
        if now_ms != self._now_ms:
            self.advance(now_ms)
        return tuple(self._used)

    def add(self, decided_ms: int, amount: int) -> Entry:
        """Count `amount` micro-USD (zero or more) decided at `decided_ms`."""
        assert amount >= 0
        if decided_ms != self._now_ms:
            self.advance(decided_ms)
        entries = self._entries
        entry = Entry(decided_ms, amount, self._dropped + len(entries))
        entries.append(entry)
        self._sums.append(amount)
        for window in range(len(self._used)):
            self._used[window] += amount
        exit_ms = decided_ms + self.lengths_ms[0]
        if exit_ms < self._next_exit_ms:
            self._next_exit_ms = exit_ms
        return entry

    def reduce(self, entry: Entry, to_amount: int) -> None:
        """Make an entry smaller: a capture below its hold, a void or an expiry.

        It frees the difference in the windows that the entry is still inside, and in no other. The
        same call twice frees once.
        """
        assert 0 <= to_amount <= entry.amount, "an entry only ever gets smaller"
        freed = entry.amount - to_amount
        index = entry.position - self._dropped
        assert index < 0 or self._entries[index] is entry, "the entry belongs to another session"
        entry.amount = to_amount
        if not freed or index < 0:
            return
        self._sums.subtract(index, freed)
        for window, left in enumerate(self._left):
            if index >= left:
                self._used[window] -= freed

    def frees_at(self, window: int, needed: int, now_ms: int) -> int | None:
        """The first instant, from `now_ms` on, by which `needed` micro-USD have left a window.

        It supposes that nothing more is added or reduced. None if the window holds less than that.
        """
        self.advance(now_ms)
        if needed <= 0:
            return now_ms
        if needed > self._used[window]:
            return None
        index = self._sums.reach(self._sums.first(self._left[window]) + needed)
        return self._entries[index].decided_ms + self.lengths_ms[window]

    def used_at(self, window: int, t_ms: int) -> int:
        """What is in a window at an instant to come, if nothing is added or reduced until then."""
        left = self._left[window]
        until_ms = t_ms - self.lengths_ms[window]
        gone = bisect_right(self._entries, until_ms, lo=left, key=lambda each: each.decided_ms)
        return self._used[window] - self._sums.first(gone) + self._sums.first(left)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries[self._left[-1] :])

    def _leave(self) -> None:
        entries = self._entries
        next_exit_ms = _NEVER_MS
        for window, length_ms in enumerate(self.lengths_ms):
            left = self._left[window]
            while left < len(entries) and entries[left].decided_ms + length_ms <= self._now_ms:
                self._used[window] -= entries[left].amount
                left += 1
            self._left[window] = left
            if left < len(entries):
                next_exit_ms = min(next_exit_ms, entries[left].decided_ms + length_ms)
        self._next_exit_ms = next_exit_ms
        if self._left[-1] * 2 > len(entries):
            self._drop()

    def _drop(self) -> None:
        # Called when more than half has left the longest window, so the copy costs less than what
        # is dropped: each entry pays for it once.
        gone = self._left[-1]
        del self._entries[:gone]
        self._dropped += gone
        self._left = [left - gone for left in self._left]
        self._sums = PrefixSums(entry.amount for entry in self._entries)
