"""Conditions: what bounds a grant beside its lists and limits, as plain sentences.

    lifetime at most 5000 USD
    at most 10 payments per hour                         (hour, day, lifetime)
    token eip155:1/erc20:0x… at most 100 USD per day     (transaction, hour, day, week, month,
    merchant books at most 20 USD per transaction         lifetime)
    only 09:00-17:00 UTC on Mon Tue Wed Thu Fri          (several: any of them)
    never merchant casino
    never token eip155:1/erc20:0x…
    never chain eip155:56

A wallet shows them as they are. Each meaning has one spelling: amounts are dollars without trailing
zeros, one payment is `1 payment`, and a merchant whose name has a space, a quotation mark or a
backslash stands in quotation marks, the last two after a backslash, so that no name can be taken
for the rest of a sentence. `never merchant` of a host denies it on every port. A list of conditions
is sorted and caps each thing once. Its active hours are half-open, one sentence for each range of a
day; what passes midnight is two.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from engine.policy.active_hours import DAY_MINUTES, WEEK_MINUTES, WeekHours
from engine.policy.identifiers import normalise_asset, normalise_chain, normalise_merchant
from engine.policy.limits import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from engine.policy.money import SUM_MAX_MICRO_USD, parse_usd, plain_usd

CONDITIONS_MAX = 64
"""Conditions in one list."""

PAYMENTS_MAX = 999_999_999

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

Thing = Literal["merchant", "token", "chain"]
Per = Literal["transaction", "hour", "day", "week", "month", "lifetime"]

WINDOW_MS: dict[Per, int | None] = {
    "transaction": None,
    "hour": HOUR_MS,
    "day": DAY_MS,
    "week": WEEK_MS,
    "month": MONTH_MS,
    "lifetime": None,
}
"""How long each rolling window is, the shortest first; None where nothing ever leaves."""

_NORMALISE = {"token": normalise_asset, "merchant": normalise_merchant, "chain": normalise_chain}


class ConditionError(ValueError):
    """Text that is not a condition in its one spelling; `field` names it, as `conditions[2]`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so much of something per window.

    `of` says what is counted: all payments (`payments`: how many, `sum`: how much), or the sum of
    those with the token or to the merchant of `name`. Sums are micro-USD.
    """

    of: Literal["payments", "sum", "token", "merchant"]
    name: str | None
    at_most: int
    per: Per

    def __post_init__(self) -> None:
        assert type(self.at_most) is int
        assert 0 <= self.at_most <= SUM_MAX_MICRO_USD
        assert (self.name is not None) == (self.of in ("token", "merchant"))

    @property
    def of_what(self) -> tuple[str, str, int]:
        """Two caps with the same differ only in how much they allow. It orders caps, too."""
        return self.of, self.name or "", _PERS.index(self.per)

    @property
    def limit_name(self) -> str:
        """What it is called among limits: `per_day`, `payments_per_hour`, `lifetime`. One for a
        token or a merchant is none of these, and called by its sentence."""
        if self.name is not None:
            return str(self)
        if self.of == "payments":
            return f"payments_per_{self.per}"
        return self.per if self.per == "lifetime" else f"per_{self.per}"

    def __str__(self) -> str:
        if self.of == "payments":
            noun = "payment" if self.at_most == 1 else "payments"
            return f"at most {self.at_most} {noun} per {self.per}"
        amount = f"at most {plain_usd(self.at_most)} USD"
        if self.of == "sum":
            return f"{self.per} {amount}"
        return f"{self.of} {_quoted(self.name or '')} {amount} per {self.per}"


@dataclass(frozen=True, slots=True)
class Never:
    """No payment to the merchant (on any port), with the token or on the chain of this name."""

    what: Thing
    name: str

    def __str__(self) -> str:
        return f"never {self.what} {_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class ActiveHours:
    """Payments in `[from_minute, until_minute)` of these days in UTC; day 0 is Monday."""

    from_minute: int
    until_minute: int
    days: tuple[int, ...]

    def __str__(self) -> str:
        start, end = (f"{at // 60:02}:{at % 60:02}" for at in (self.from_minute, self.until_minute))
        return f"only {start}-{end} UTC on {' '.join(DAYS[day] for day in self.days)}"


Condition = Cap | Never | ActiveHours


@dataclass(frozen=True, slots=True)
class InForce:
    """What several conditions come to together: `caps` has the strictest of each, in order."""

    caps: tuple[Cap, ...]
    never: frozenset[tuple[Thing, str]]
    hours: WeekHours | None
    """None when there are no active hours: any time will do."""


@lru_cache(4096)
def parse_condition(text: str) -> Condition:
    """Read one sentence; `str()` of what it returns is `text` again.

    Raises:
        ValueError: it is no condition, or has another spelling, which the message then gives.
    """
    for pattern, build in _SENTENCES:
        if match := pattern.fullmatch(text):
            condition = build(*match.groups())
            if str(condition) != text:
                raise ValueError(f"write {str(condition)!r}")
            return condition
    raise ValueError("is none of the sentences that a condition can be")


def parse_conditions(texts: Sequence[str], field: str = "conditions") -> tuple[Condition, ...]:
    """Read a list of conditions in its one form.

    Raises:
        ConditionError: naming `field`, or the first of its items that is not as it must be.
    """
    if not texts:
        return ()
    if len(texts) > CONDITIONS_MAX:
        raise ConditionError(field, f"has more than {CONDITIONS_MAX} conditions")
    conditions: list[Condition] = []
    capped = set()
    for index, text in enumerate(texts):
        here = f"{field}[{index}]"
        try:
            condition = parse_condition(text)
        except ValueError as error:
            raise ConditionError(here, str(error)) from error
        if index and not texts[index - 1] < text:
            raise ConditionError(here, "conditions are sorted, and each is there once")
        if isinstance(condition, Cap):
            if condition.of_what in capped:
                raise ConditionError(here, "the same is capped twice")
            capped.add(condition.of_what)
        conditions.append(condition)
    hours = [condition for condition in conditions if isinstance(condition, ActiveHours)]
    one_form = _one_form(hours)
    if set(one_form) != set(hours):
        form = " and ".join(repr(str(each)) for each in one_form) or "not at all"
        raise ConditionError(field, f"has active hours that are written {form}")
    return tuple(conditions)


def in_force(*lists: Iterable[Condition]) -> InForce:
    """All lists together: each can only narrow what the others allow."""
    caps: dict[tuple[str, str, int], Cap] = {}
    never = set()
    open_hours: WeekHours | None = None
    for conditions in map(tuple, lists):
        for condition in conditions:
            if isinstance(condition, Never):
                never.add((condition.what, condition.name))
            elif isinstance(condition, Cap):
                other = caps.get(condition.of_what)
                if other is None or condition.at_most < other.at_most:
                    caps[condition.of_what] = condition
        hours = [condition for condition in conditions if isinstance(condition, ActiveHours)]
        if hours:
            week = _week(hours)
            open_hours = week if open_hours is None else open_hours.common(week)
    return InForce(tuple(caps[key] for key in sorted(caps)), frozenset(never), open_hours)


def _week(hours: Iterable[ActiveHours]) -> WeekHours:
    return WeekHours(
        (day * DAY_MINUTES + each.from_minute, day * DAY_MINUTES + each.until_minute)
        for each in hours
        for day in each.days
    )


def _one_form(hours: Iterable[ActiveHours]) -> list[ActiveHours]:
    """The one form of these hours: for each range that some days have, a sentence."""
    days: dict[tuple[int, int], list[int]] = {}
    week = _week(hours).ranges
    if week == ((0, WEEK_MINUTES),):
        return []
    for day in range(len(DAYS)):
        midnight = day * DAY_MINUTES
        for start, end in week:
            within = max(start - midnight, 0), min(end - midnight, DAY_MINUTES)
            if within[0] < within[1]:
                days.setdefault(within, []).append(day)
    return [ActiveHours(*within, tuple(on)) for within, on in days.items()]


def _quoted(name: str) -> str:
    if _BARE.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _name(of: str, text: str) -> str:
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return _NORMALISE[of](text)


def _payments(count: str, per: Per) -> Cap:
    if not 0 < int(count) <= PAYMENTS_MAX:
        raise ValueError(f"a number of payments is between 1 and {PAYMENTS_MAX}")
    return Cap("payments", None, int(count), per)


def _sum(of: Literal["token", "merchant"], name: str, amount: str, per: Per) -> Cap:
    return Cap(of, _name(of, name), parse_usd(amount), per)


def _lifetime(amount: str) -> Cap:
    return Cap("sum", None, parse_usd(amount), "lifetime")


def _never(what: Thing, name: str) -> Never:
    return Never(what, _name(what, name))


def _hours(from_hour: str, from_minute: str, hour: str, minute: str, days: str) -> ActiveHours:
    start, end = int(from_hour) * 60 + int(from_minute), int(hour) * 60 + int(minute)
    if not start < end <= DAY_MINUTES:
        raise ValueError("active hours end after they start and at most at 24:00")
    return ActiveHours(start, end, tuple(sorted({DAYS.index(day) for day in days.split()})))


_PERS = tuple(WINDOW_MS)
_BARE = re.compile(r'[^\s"\\]+')
_NAME = r'("(?:[^"\\]|\\.)+"|[^\s"\\]+)'
_USD = r"at most (\S+) USD"
_DAY = f"(?:{'|'.join(DAYS)})"
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[..., Condition]], ...] = (
    (re.compile(f"lifetime {_USD}"), _lifetime),
    (re.compile("at most ([0-9]{1,10}) payments? per (hour|day|lifetime)"), _payments),
    (re.compile(f"(token|merchant) {_NAME} {_USD} per ({'|'.join(_PERS)})"), _sum),
    (re.compile(f"never (merchant|token|chain) {_NAME}"), _never),
    (
        re.compile(
            rf"only ([0-9]{{2}}):([0-5][0-9])-([0-9]{{2}}):([0-5][0-9]) UTC on ({_DAY}(?: {_DAY})*)"
        ),
        _hours,
    ),
)
