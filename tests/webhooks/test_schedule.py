"""When a delivery is tried again."""

from itertools import accumulate

import pytest

from engine.webhooks.schedule import (
    ATTEMPTS_MAX,
    DELAYS_MS,
    RETRY_AFTER_MAX_MS,
    next_attempt_ms,
    retry_after_ms,
)

HOUR_S = 3_600
NOW_MS = 1_800_000_000_000


def test_ten_attempts_go_on_for_75_hours_35_minutes_and_5_seconds() -> None:
    seconds = [0, 5, 300, 1_800, *(hours * HOUR_S for hours in (2, 5, 10, 14, 20, 24))]
    assert [delay / 1000 for delay in DELAYS_MS] == seconds
    assert list(accumulate(seconds))[-1] == 75 * HOUR_S + 35 * 60 + 5


def test_each_delay_is_longer_by_at_most_a_tenth() -> None:
    for made in range(1, ATTEMPTS_MAX):
        first = next_attempt_ms(made, NOW_MS, 0.0)
        last = next_attempt_ms(made, NOW_MS, 1 - 2**-32)
        assert first == NOW_MS + DELAYS_MS[made]
        assert last is not None
        assert first < last <= NOW_MS + DELAYS_MS[made] * 11 // 10
    assert next_attempt_ms(ATTEMPTS_MAX, NOW_MS, 0.5) is None


def test_a_receiver_can_ask_for_more_patience_and_not_for_less() -> None:
    assert next_attempt_ms(1, NOW_MS, 0.0, 60_000) == NOW_MS + 60_000
    assert next_attempt_ms(2, NOW_MS, 0.0, 60_000) == NOW_MS + DELAYS_MS[2]


@pytest.mark.parametrize(
    ("header", "expected_ms"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        (" 120 ", 120_000),
        ("-1", 0),
        ("1.5", 0),
        ("1e9", 0),
        ("1000000000", RETRY_AFTER_MAX_MS),
        ("9" * 5_000, RETRY_AFTER_MAX_MS),
        ("١٢", 0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60_000),
        ("Fri, 15 Jan 2027 07:59:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_MS),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
        ("soon", 0),
        ("\x00", 0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_bounded(
    header: str | None, expected_ms: int
) -> None:
    assert retry_after_ms(header, NOW_MS) == expected_ms
