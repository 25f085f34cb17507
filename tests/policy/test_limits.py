from typing import Any

import pytest

from engine.policy.limits import DAY_MS, DEFAULT_LIMITS, MONTH_MS, WEEK_MS, Limits, lowest
from tests.policy.samples import UNLIMITED, USD, limits


def test_defaults_are_the_documented_dollars() -> None:
    assert DEFAULT_LIMITS.per_transaction == 1_000 * USD
    assert DEFAULT_LIMITS.per_day == 5_000 * USD
    assert DEFAULT_LIMITS.per_week == 20_000 * USD
    assert DEFAULT_LIMITS.per_month == 50_000 * USD
    assert DEFAULT_LIMITS.approval_above == 500 * USD


def test_lengths_are_24_hours_7_days_and_30_days() -> None:
    assert (DAY_MS, WEEK_MS, MONTH_MS) == (86_400_000, 604_800_000, 2_592_000_000)


@pytest.mark.parametrize("field", UNLIMITED)
@pytest.mark.parametrize("value", [-1, 10**15, True, 1.0, "1"])
def test_a_limit_is_an_integer_of_micro_usd_in_range(field: str, value: int) -> None:
    with pytest.raises(AssertionError):
        limits(**{field: value})


@pytest.mark.parametrize("value", [None, 0, 1, 10**15 - 1])
def test_the_ends_of_the_range_are_limits(value: int | None) -> None:
    assert limits(per_day=value).per_day == value


def test_json_and_back() -> None:
    some = limits(per_day=7, approval_above=None)
    assert Limits.from_json(some.to_json()) == some
    assert some.to_json()["per_day"] == 7


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {**UNLIMITED, "per_year": 1},
        dict.fromkeys(list(UNLIMITED)[1:]),
        *({**UNLIMITED, "per_week": wrong} for wrong in (-1, 10**15, True, 1.0, "1")),
    ],
)
def test_what_is_not_these_limits_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match=r"limits are|is no limit per_week"):
        Limits.from_json(told)


def test_the_lowest_of_each_limit_counts_and_no_limit_never_does() -> None:
    one = limits(per_day=5, per_week=9)
    other = limits(per_day=6, per_week=8, per_month=None)
    assert lowest(one, other, limits()) == limits(per_day=5, per_week=8)
    assert lowest(one) == one
