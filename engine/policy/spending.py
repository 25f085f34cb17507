"""What a session has used of everything that bounds it over time.

    spending = Spending(policy)
    hold = spending.add(now_ms, request)
    spending.reduce(hold, 20_000_000)  # captured below its hold: the rest is free at once

Beside the day, week and month of the whole session, one `Meter` for each thing that conditions cap
counts the payments that it concerns, and no others.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from engine.policy.conditions import WINDOW_MS, Cap
from engine.policy.decision import PaymentRequest, Policy
from engine.policy.windows import Counter, Entry, RollingWindows


class Gauge(NamedTuple):
    """One cap, how much of it is used, and how much more a payment would use.

    Micro-USD, or payments. Of `windows` it is number `window`; None where nothing ever leaves.
    `counter` is who counts it.
    """

    cap: Cap
    used: int
    requested: int
    windows: RollingWindows | None
    window: int
    counter: Counter

    @property
    def over(self) -> bool:
        """Whether the payment does not fit."""
        return self.used + self.requested > self.cap.at_most

    @property
    def left(self) -> int:
        """What the payment would leave; never negative, though a cap may have been lowered."""
        return max(0, self.cap.at_most - self.used - self.requested)

    def fits_at(self, now_ms: int) -> int | None:
        """The first instant from `now_ms` on at which the payment fits; None if it never does."""
        needed = self.used + self.requested - self.cap.at_most
        if needed <= 0:
            return now_ms
        return None if self.windows is None else self.windows.frees_at(self.window, needed, now_ms)

    def used_at(self, t_ms: int, over: Iterable[tuple[int, Entry]]) -> int:
        """What would be used at an instant to come, without the entries that are over by then."""
        used, since_ms = self.used, None
        if self.windows is not None:
            used = self.windows.used_at(self.window, t_ms)
            since_ms = t_ms - self.windows.lengths_ms[self.window]
        return used - sum(
            entry.amount
            for at_ms, entry in over
            if at_ms <= t_ms and (since_ms is None or entry.decided_ms > since_ms)
        )


class Meter:
    """What the payments of one kind have used: micro-USD, or how many there were.

    `caps` are caps on one thing and over time, the shortest window first. A payment counts as one
    for as long as any of its amount counts.
    """

    __slots__ = ("_windows", "caps", "lifetime")

    def __init__(self, caps: Iterable[Cap]) -> None:
        self.caps = tuple(caps)
        lengths = (WINDOW_MS[cap.per] for cap in self.caps)
        lengths_ms = tuple(length_ms for length_ms in lengths if length_ms is not None)
        self._windows = RollingWindows(lengths_ms) if lengths_ms else None
        self.lifetime = 0
        """All that counts, however long ago."""

    def requested(self, amount: int) -> int:
        """What a payment of `amount` micro-USD counts here."""
        return min(amount, 1) if self.caps[0].of == "payments" else amount

    def add(self, decided_ms: int, amount: int) -> Entry:
        """Count a payment of `amount` micro-USD decided at `decided_ms`."""
        counted = self.requested(amount)
        self.lifetime += counted
        if self._windows is None:
            return Entry(decided_ms, counted, 0)
        return self._windows.add(decided_ms, counted)

    def reduce(self, entry: Entry, to_amount: int) -> None:
        """Count only `to_amount` micro-USD of a payment."""
        counted = self.requested(to_amount)
        self.lifetime -= entry.amount - counted
        if self._windows is None:
            entry.amount = counted
        else:
            self._windows.reduce(entry, counted)

    def gauges(self, amount: int, now_ms: int) -> Iterator[Gauge]:
        """Each cap at `now_ms`, and what a payment of `amount` micro-USD would add."""
        requested = self.requested(amount)
        used = () if self._windows is None else self._windows.used(now_ms)
        for window, cap in enumerate(self.caps):
            if window < len(used):
                yield Gauge(cap, used[window], requested, self._windows, window, self)
            else:
                yield Gauge(cap, self.lifetime, requested, None, 0, self)

    def left(self, amount: int, now_ms: int) -> int:
        """What the tightest cap would leave at `now_ms` after a payment of `amount` micro-USD."""
        return min(gauge.left for gauge in self.gauges(amount, now_ms))


class Meters:
    """A meter for each thing that `caps`, in the order of `Cap.of_what`, are on."""

    __slots__ = ("_meters",)

    def __init__(self, caps: Iterable[Cap]) -> None:
        over_time = (cap for cap in caps if cap.per != "transaction")
        things = groupby(over_time, key=lambda cap: (cap.of, cap.name))
        self._meters: dict[tuple[str, str | None], Meter] = {
            thing: Meter(capped) for thing, capped in things
        }

    def __bool__(self) -> bool:
        return bool(self._meters)

    def get(self, of: str, name: str | None = None) -> Meter | None:
        """The meter of one thing, None if nothing caps it."""
        return self._meters.get((of, name))

    def concerned(self, request: PaymentRequest) -> Iterator[Meter]:
        """Those that count a payment, by precedence; under either name of who is paid."""
        for thing in (
            ("payments", None),
            ("sum", None),
            ("token", request.token),
            ("merchant", request.merchant),
        ):
            meter = self._meters.get(thing)
            if meter is not None:
                yield meter
        if request.pay_to is not None and request.pay_to != request.merchant:
            meter = self._meters.get(("merchant", request.pay_to))
            if meter is not None:
                yield meter

    def gauges(self, now_ms: int) -> Iterator[Gauge]:
        """Each cap at `now_ms`, before any payment."""
        for meter in self._meters.values():
            yield from meter.gauges(0, now_ms)

    def add(self, decided_ms: int, request: PaymentRequest) -> tuple[tuple[Counter, Entry], ...]:
        """Count a payment wherever it concerns a meter."""
        return tuple(
            (meter, meter.add(decided_ms, request.amount)) for meter in self.concerned(request)
        )


class Spending:
    """All that one session has used under `policy`; when its conditions change, make another.

    Time never runs backwards: each instant is at or after the one before, of whichever method. To
    rebuild it, add the payments that still count, in the order of decision.
    """

    __slots__ = ("caps", "meters", "windows")

    def __init__(self, policy: Policy, windows: RollingWindows | None = None) -> None:
        self.windows = RollingWindows() if windows is None else windows
        """The day, the week and the month of all payments together."""
        self.caps = policy.in_force.caps
        self.meters = Meters(self.caps)

    def add(self, decided_ms: int, request: PaymentRequest) -> Entry:
        """Count an allowed payment."""
        entry = self.windows.add(decided_ms, request.amount)
        if self.meters:
            entry.parts = self.meters.add(decided_ms, request)
        return entry

    def reduce(self, entry: Entry, to_amount: int) -> None:
        """Count only `to_amount` micro-USD of a payment that was captured below its hold, voided
        or expired: the rest is free at once, and a payment of nothing counts as none."""
        self.windows.reduce(entry, to_amount)
        for meter, part in entry.parts:
            meter.reduce(part, to_amount)
