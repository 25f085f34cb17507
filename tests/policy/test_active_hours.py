from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.policy.active_hours import MINUTE_MS, WEEK_MINUTES, WeekHours
from engine.policy.conditions import in_force
from tests.policy.samples import conditions

WEEK_MS = WEEK_MINUTES * MINUTE_MS
minute = st.sampled_from([0, 1, 539, 540, 1439, 1440, 1441, WEEK_MINUTES - 1, WEEK_MINUTES])
ranges = st.lists(
    st.tuples(minute | st.integers(0, WEEK_MINUTES), minute | st.integers(0, WEEK_MINUTES)).filter(
        lambda pair: pair[0] < pair[1]
    ),
    max_size=5,
)


def minutes(hours: WeekHours) -> set[int]:
    return {at for start, end in hours.ranges for at in range(start, end)}


@given(ranges)
def test_ranges_are_merged_into_their_one_form(some: list[tuple[int, int]]) -> None:
    hours = WeekHours(some)
    assert minutes(hours) == {at for start, end in some for at in range(start, end)}
    assert WeekHours(reversed(some)).ranges == hours.ranges
    assert all(a[1] < b[0] for a, b in zip(hours.ranges, hours.ranges[1:], strict=False))


@given(ranges, ranges)
def test_within_and_common_are_those_of_sets(
    a: list[tuple[int, int]], b: list[tuple[int, int]]
) -> None:
    first, second = WeekHours(a), WeekHours(b)
    assert first.within(second) == (minutes(first) <= minutes(second))
    assert minutes(first.common(second)) == minutes(first) & minutes(second)
    assert first.common(second).within(first)


@given(ranges, st.integers(0, 3 * WEEK_MS))
def test_it_opens_at_the_first_open_instant(some: list[tuple[int, int]], now_ms: int) -> None:
    hours = WeekHours(some)
    open_at = minutes(hours)
    found = None
    for wait in range(WEEK_MINUTES + 1):
        # Now, and then each start of a minute: nothing opens in between.
        t_ms = now_ms if wait == 0 else (now_ms // MINUTE_MS + wait) * MINUTE_MS
        if (t_ms // MINUTE_MS + 3 * 1440) % WEEK_MINUTES in open_at:
            found = t_ms
            break
    assert hours.opens_at(now_ms) == found


@pytest.mark.parametrize("bounds", [(5, 5), (6, 5), (-1, 5), (0, WEEK_MINUTES + 1)])
def test_a_range_lies_within_the_week(bounds: tuple[int, int]) -> None:
    with pytest.raises(AssertionError):
        WeekHours([bounds])


def at_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2027-01-15T08:59:59", "2027-01-15T09:00:00"),  # a Friday
        ("2027-01-15T09:00:00", "2027-01-15T09:00:00"),
        ("2027-01-15T16:59:59", "2027-01-15T16:59:59"),
        ("2027-01-15T17:00:00", "2027-01-18T09:00:00"),  # Monday
        ("2028-02-29T12:00:00", "2028-02-29T12:00:00"),  # Tuesday
        ("2026-12-31T23:59:59", "2027-01-01T09:00:00"),  # Thursday, Friday
        ("1970-01-01T00:00:00", "1970-01-01T09:00:00"),
        ("9999-12-31T12:00:00", "9999-12-31T12:00:00"),  # Friday
    ],
)
def test_working_hours_on_dates_of_the_calendar(at: str, opens: str) -> None:
    hours = in_force(conditions("only 09:00-17:00 UTC on Mon Tue Wed Thu Fri")).hours
    assert hours is not None
    assert hours.opens_at(at_ms(at)) == at_ms(opens)


def test_the_last_millisecond_is_open_and_the_next_is_not() -> None:
    hours = in_force(conditions("only 09:00-17:00 UTC on Fri")).hours
    assert hours is not None
    end_ms = at_ms("2027-01-15T17:00:00")
    assert hours.opens_at(end_ms - 1) == end_ms - 1
    assert hours.opens_at(end_ms) == end_ms + 6 * 86_400_000 + 16 * 3_600_000
