"""How much a session may spend, and over which lengths of time."""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from engine.policy.money import AMOUNT_MAX_MICRO_USD, MICRO_USD_PER_USD

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
MONTH_MS = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one session, each in micro-USD; None means unlimited.

    `per_day`, `per_week` and `per_month` hold for every rolling 24 hours, 7 days and 30 days, not
    for calendar periods. An amount equal to a limit is within it; an amount above `approval_above`
    needs an approval.
    """

    per_transaction: int | None
    per_day: int | None
    per_week: int | None
    per_month: int | None
    approval_above: int | None

    def __post_init__(self) -> None:
        for limit in _values(self):
            assert limit is None or (type(limit) is int and 0 <= limit <= AMOUNT_MAX_MICRO_USD)

    def to_json(self) -> dict[str, int | None]:
        """By name, as in grants and records."""
        return dict(zip(_NAMES, _values(self), strict=True))

    @classmethod
    def from_json(cls, told: Any) -> "Limits":
        """The inverse of `to_json`.

        Raises:
            ValueError: they are not these limits, or one is none.
        """
        if not isinstance(told, dict) or sorted(told) != sorted(_NAMES):
            raise ValueError(f"limits are {', '.join(_NAMES)}")
        for name, limit in told.items():
            if limit is None:
                continue
            if type(limit) is not int or not 0 <= limit <= AMOUNT_MAX_MICRO_USD:
                raise ValueError(f"what it has is no limit {name}")
        return cls(**told)


_NAMES = tuple(field.name for field in fields(Limits))  # to find them each time takes longer
_values = attrgetter(*_NAMES)


def lowest(*limits: Limits) -> Limits:
    """The smallest of each limit; it is unlimited where all are."""
    if len(limits) == 1:  # nearly always: nothing was lowered
        return limits[0]
    smallest = (
        min((limit for limit in each if limit is not None), default=None)
        for each in zip(*map(_values, limits), strict=True)
    )
    return Limits(*smallest)


DEFAULT_LIMITS = Limits(
    per_transaction=1_000 * MICRO_USD_PER_USD,
    per_day=5_000 * MICRO_USD_PER_USD,
    per_week=20_000 * MICRO_USD_PER_USD,
    per_month=50_000 * MICRO_USD_PER_USD,
    approval_above=500 * MICRO_USD_PER_USD,
)
"""What a create request that leaves a limit out gets for it."""
