"""Conditions as forms ask for them: fields for the usual ones, and a line for each other one.

payments_per_hour: 10           at most 10 payments per hour
lifetime: 500                   lifetime at most 500 USD
from: 22:00, until: 06:00       only 22:00-24:00 UTC on … and only 00:00-06:00 UTC on …
never: casino                   never merchant casino
others: token …                 as it stands there
"""

from collections.abc import Mapping, Sequence
from typing import Any

from api.studio.forms import lines, whole
from engine.errors import InvalidInput
from engine.policy.active_hours import DAY_MINUTES
from engine.policy.conditions import (
    DAYS,
    PAYMENTS_MAX,
    ActiveHours,
    Cap,
    Never,
    Per,
    parse_condition,
)
from engine.policy.identifiers import normalise_merchant
from engine.policy.money import parse_usd
from engine.sessions.merchants import check_merchant

TEXTS = ("payments_per_hour", "payments_per_day", "lifetime", "from", "until", "never", "others")
TITLES = {
    "payments_per_hour": "Payments per hour",
    "payments_per_day": "Payments per 24 hours",
    "lifetime": "In its whole life",
    "from": "From",
    "until": "Until",
    "days": "Days",
    "never": "Never these merchants",
    "others": "Other conditions",
}
_COUNTS: tuple[tuple[str, Per], ...] = (("payments_per_hour", "hour"), ("payments_per_day", "day"))
_CAPS = ("payments_per_hour", "payments_per_day", "lifetime")


def asked_for(form: Mapping[str, str]) -> dict[str, Any]:
    """What a form says of conditions, to be shown in it again."""
    found: dict[str, Any] = {name: form.get(name, "").strip() for name in TEXTS}
    return {**found, "days": [day for day in DAYS if f"day:{day}" in form]}


def sentences(given: Mapping[str, Any]) -> list[str]:
    """The conditions that they come to, in no order.

    Raises:
        InvalidInput: naming the field.
    """
    return [
        *_counts(given),
        *_lifetime(given),
        *_hours(given),
        *(_never(name) for name in lines(given["never"])),
        *lines(given["others"]),
    ]


def fields_of(conditions: Sequence[str]) -> dict[str, Any]:
    """The fields as they would have to be filled for these conditions."""
    found: dict[str, Any] = {**dict.fromkeys(TEXTS, ""), "days": []}
    never, others = [], []
    parsed = [(each, parse_condition(each)) for each in conditions]
    one_range = sum(isinstance(each, ActiveHours) for _, each in parsed) == 1
    for sentence, each in parsed:
        # Of two that bound the same, both hold: the second stays a sentence.
        if isinstance(each, Cap) and (name := _field(each)) in _CAPS and not found[name]:
            found[name] = sentence.split()[3] if each.of == "sum" else str(each.at_most)
        elif isinstance(each, Never) and each.what == "merchant":
            never.append(each.name)
        elif isinstance(each, ActiveHours) and one_range:
            found["from"], found["until"] = _clock(each.from_minute), _clock(each.until_minute)
            found["days"] = [DAYS[day] for day in each.days]
        else:
            others.append(sentence)
    return {**found, "never": "\n".join(never), "others": "\n".join(others)}


def told(error: InvalidInput, said: Sequence[str]) -> InvalidInput:
    """An error about one of the sentences that were `said`, as `conditions[2]`, with the field of
    the form that it stands in; any other error as it is."""
    field, _, index = error.field.partition("[")
    if field not in ("conditions", "restrictions"):
        return error
    message = error.message.removeprefix(f"{error.field}: ")
    if not index:
        return InvalidInput("others", message)
    sentence = said[int(index.removesuffix("]"))]
    return InvalidInput("others", f"{sentence!r}: {message}")


def _field(cap: Cap) -> str:
    if cap.of == "sum":
        return "lifetime"
    return f"payments_per_{cap.per}" if cap.of == "payments" else "others"


def _counts(given: Mapping[str, Any]) -> list[str]:
    found = []
    for name, per in _COUNTS:
        count = whole(given, name)
        if count is None:
            continue
        if not 0 < count <= PAYMENTS_MAX:
            raise InvalidInput(name, f"is between 1 and {PAYMENTS_MAX}")
        found.append(str(Cap("payments", None, count, per)))
    return found


def _lifetime(given: Mapping[str, Any]) -> list[str]:
    if not given["lifetime"]:
        return []
    try:
        return [str(Cap("sum", None, parse_usd(given["lifetime"]), "lifetime"))]
    except ValueError as error:
        raise InvalidInput("lifetime", str(error)) from error


def _hours(given: Mapping[str, Any]) -> list[str]:
    if not (given["from"] or given["until"] or given["days"]):
        return []
    begin, end = _minute("from", given["from"]), _minute("until", given["until"]) or DAY_MINUTES
    days = tuple(DAYS.index(day) for day in given["days"]) or tuple(range(len(DAYS)))
    if begin < end:
        if (begin, end, len(days)) == (0, DAY_MINUTES, len(DAYS)):
            return []
        return [str(ActiveHours(begin, end, days))]
    if begin == end:
        raise InvalidInput("until", "must be another time than the beginning")
    after = tuple(sorted((day + 1) % len(DAYS) for day in days))
    return [str(ActiveHours(begin, DAY_MINUTES, days)), str(ActiveHours(0, end, after))]


def _minute(field: str, text: str) -> int:
    hours, _, minutes = text.partition(":")
    if not text:
        return 0
    for part, most in ((hours, 23), (minutes, 59)):
        if not (part.isascii() and part.isdigit() and len(part) == 2 and int(part) <= most):
            raise InvalidInput(field, "takes a time such as 09:00")
    return int(hours) * 60 + int(minutes)


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


def _never(name: str) -> str:
    try:
        merchant = normalise_merchant(name)
        check_merchant(merchant)
    except ValueError as error:
        raise InvalidInput("never", str(error)) from error
    return str(Never("merchant", merchant))
