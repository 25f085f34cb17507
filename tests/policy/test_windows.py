import sys
from itertools import product
from types import FrameType
from typing import Any

import pytest

from engine.policy import prefix_sums, windows
from engine.policy.limits import DAY_MS, MONTH_MS, WEEK_MS
from engine.policy.windows import RollingWindows
from tests.policy.oracle import History, Spend

T0 = 1_800_000_000_000


@pytest.mark.parametrize(("window", "length_ms"), [(0, DAY_MS), (1, WEEK_MS), (2, MONTH_MS)])
def test_an_entry_counts_from_its_decision_until_just_before_one_length_later(
    window: int, length_ms: int
) -> None:
    rolling = RollingWindows()
    rolling.add(T0, 7)
    assert rolling.used(T0)[window] == 7
    assert rolling.used(T0 + length_ms - 1)[window] == 7
    assert rolling.used(T0 + length_ms)[window] == 0
    assert rolling.used(T0 + length_ms + 1)[window] == 0


def test_entries_of_one_instant_come_and_go_together() -> None:
    rolling = RollingWindows((10,))
    for amount in (1, 2, 4):
        rolling.add(100, amount)
    assert rolling.used(109) == (7,)
    assert rolling.used(110) == (0,)


def test_reducing_frees_the_difference_once() -> None:
    rolling = RollingWindows((10, 20))
    entry = rolling.add(100, 9)
    rolling.reduce(entry, 4)
    rolling.reduce(entry, 4)
    assert rolling.used(100) == (4, 4)
    rolling.reduce(entry, 0)
    rolling.reduce(entry, 0)
    assert rolling.used(100) == (0, 0)


def test_reducing_leaves_alone_the_windows_that_the_entry_has_left() -> None:
    rolling = RollingWindows((10, 20, 30))
    old = rolling.add(100, 9)
    rolling.add(115, 1)
    assert rolling.used(115) == (1, 10, 10)
    rolling.reduce(old, 3)
    assert rolling.used(115) == (1, 4, 4)
    assert rolling.used(120) == (1, 1, 4)
    rolling.reduce(old, 1)
    assert rolling.used(120) == (1, 1, 2)
    assert rolling.used(130) == (0, 1, 1)
    rolling.reduce(old, 0)
    assert rolling.used(130) == (0, 1, 1)
    assert old.amount == 0


@pytest.mark.parametrize("to_amount", [-1, 6, 10])
def test_an_entry_never_grows_and_never_goes_below_zero(to_amount: int) -> None:
    rolling = RollingWindows((10,))
    entry = rolling.add(100, 9)
    rolling.reduce(entry, 5)
    with pytest.raises(AssertionError):
        rolling.reduce(entry, to_amount)
    assert (entry.amount, rolling.used(100)) == (5, (5,))


def test_an_entry_of_another_session_is_refused() -> None:
    mine, other = RollingWindows((10,)), RollingWindows((10,))
    mine.add(100, 9)
    foreign = other.add(100, 9)
    with pytest.raises(AssertionError):
        mine.reduce(foreign, 0)
    assert (foreign.amount, mine.used(100), other.used(100)) == (9, (9,), (9,))


@pytest.mark.parametrize("call", ["advance", "used", "add", "frees_at"])
def test_time_never_runs_backwards(call: str) -> None:
    rolling = RollingWindows((10,))
    rolling.add(100, 1)
    arguments = {"advance": (99,), "used": (99,), "add": (99, 1), "frees_at": (0, 1, 99)}
    with pytest.raises(AssertionError):
        getattr(rolling, call)(*arguments[call])
    assert rolling.used(100) == (1,)


def test_a_negative_amount_is_refused() -> None:
    rolling = RollingWindows((10,))
    with pytest.raises(AssertionError):
        rolling.add(100, -1)
    assert rolling.used(100) == (0,)


@pytest.mark.parametrize("lengths_ms", [(0,), (-1,), (5, 5), (5, 4)])
def test_lengths_ascend_from_above_zero(lengths_ms: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        RollingWindows(lengths_ms)


def test_when_a_window_frees() -> None:
    rolling = RollingWindows((10, 20))
    rolling.add(100, 3)
    voided = rolling.add(102, 8)
    rolling.add(104, 5)
    rolling.reduce(voided, 0)
    assert rolling.frees_at(0, -1, 105) == 105
    assert rolling.frees_at(0, 0, 105) == 105
    assert rolling.frees_at(0, 1, 105) == 110
    assert rolling.frees_at(0, 3, 105) == 110
    assert rolling.frees_at(0, 4, 105) == 114
    assert rolling.frees_at(0, 8, 105) == 114
    assert rolling.frees_at(0, 9, 105) is None
    assert rolling.frees_at(0, 5, 110) == 114
    assert rolling.frees_at(0, 6, 110) is None
    assert rolling.frees_at(1, 6, 110) == 124


def test_every_instant_up_to_the_year_9999_works() -> None:
    last_ms = 253_402_300_799_999
    rolling = RollingWindows()
    rolling.add(last_ms, 5)
    assert rolling.frees_at(2, 5, last_ms) == last_ms + MONTH_MS
    assert rolling.used(last_ms + DAY_MS) == (0, 5, 5)


def test_all_short_histories_with_reductions_match_the_oracle() -> None:
    """Every sequence of 4 entries with 3 gaps and 3 reductions of an earlier one."""
    lengths_ms = (2, 3, 5)
    steps = list(product((0, 1, 3), (None, 0, 1)))
    for sequence in product(steps, repeat=4):
        rolling, history, now_ms = RollingWindows(lengths_ms), History(lengths_ms), 50
        entries = []
        for amount, (gap_ms, reduced) in enumerate(sequence, start=2):
            now_ms += gap_ms
            entries.append(rolling.add(now_ms, amount))
            history.spends.append(Spend(now_ms, [(now_ms, amount)]))
            if reduced is not None and reduced < len(entries):
                to_amount = entries[reduced].amount // 2
                rolling.reduce(entries[reduced], to_amount)
                history.spends[reduced].amounts.append((now_ms, to_amount))
        assert rolling.used(now_ms) == history.used(now_ms)
        for window in range(3):
            assert rolling.frees_at(window, 2, now_ms) == history.frees_at(window, 2, now_ms)


def test_what_left_the_longest_window_is_dropped() -> None:
    rolling = RollingWindows((10, 100))
    for t_ms in range(1, 5001):
        rolling.add(t_ms, 1)
        assert [entry.decided_ms for entry in rolling] == list(range(max(1, t_ms - 99), t_ms + 1))
        assert len(rolling._entries) <= 201
    assert rolling.used(5000) == (10, 100)
    assert rolling.used(6000) == (0, 0)
    assert rolling._entries == []


def _lines_run(rolling: RollingWindows, now_ms: int) -> int:
    """How many lines of the windows' code one denial and one approval run."""
    files = {windows.__file__, prefix_sums.__file__}
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        used = rolling.used(now_ms)
        rolling.frees_at(2, used[2] // 2, now_ms)
        entry = rolling.add(now_ms, 1)
        rolling.reduce(entry, 0)
    finally:
        sys.settrace(before)
    return count


def test_the_cost_of_a_decision_does_not_grow_with_history() -> None:
    costs = []
    for length in (100, 10_000):
        rolling = RollingWindows()
        for t_ms in range(1, length + 1):
            rolling.add(t_ms, 5)
        costs.append(_lines_run(rolling, length + 1))
    short, long = costs
    assert short > 20
    assert long <= 3 * short
