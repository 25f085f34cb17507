"""When a payment would fit if nobody captured the holds that are open.

`Gauge.fits_at` supposes that they are all kept, and that is what the evidence of a denial tells
(`retry_at_ms`): an auditor has to come to the same, and records of before are as they are.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.policy.spending import Gauge
from engine.policy.windows import Counter, Entry


class Expiry(NamedTuple):
    """A hold is over at `at_ms` unless it is captured: what counts it then counts nothing of it."""

    at_ms: int
    parts: tuple[tuple[Counter, Entry], ...]


Expiries = Mapping[int, Sequence[tuple[int, Entry]]]
"""For each counter, by its identity, when which of its entries is over."""


def by_counter(expiries: Iterable[Expiry]) -> Expiries:
    """What is over in each counter."""
    found: dict[int, list[tuple[int, Entry]]] = {}
    for expiry in expiries:
        for counter, entry in expiry.parts:
            found.setdefault(id(counter), []).append((expiry.at_ms, entry))
    return found


def fits_at(gauge: Gauge, expiries: Expiries, now_ms: int) -> int | None:
    """The first instant from `now_ms` on at which the payment fits, if nothing happens but that
    windows free and holds expire; None if it never does."""
    kept_ms = gauge.fits_at(now_ms)
    over = expiries.get(id(gauge.counter), ())
    if kept_ms == now_ms or not over:
        return kept_ms

    def fits(t_ms: int) -> bool:
        return gauge.used_at(t_ms, over) + gauge.requested <= gauge.cap.at_most

    # What is used only falls, so the first instant at which it fits parts all others in two.
    latest_ms = max(at_ms for at_ms, _ in over) if kept_ms is None else kept_ms
    if not fits(latest_ms):
        return None
    return bisect_left(range(now_ms, latest_ms), True, key=fits) + now_ms
