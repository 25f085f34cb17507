"""The limits against an oracle that re-sums all of history at every instant."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy.decide import decide
from engine.policy.decision import Standing
from engine.policy.spending import Spending
from engine.policy.windows import Entry, RollingWindows
from tests.policy.oracle import WINDOW_RULES, History, Spend
from tests.policy.samples import limits, policy, request

HOUR_MS = 3_600_000
REAL_MS = (24 * HOUR_MS, 7 * 24 * HOUR_MS, 30 * 24 * HOUR_MS)
SMALL_MS = (4, 7, 11)
CAPS = st.one_of(st.none(), st.integers(0, 12))


class World:
    """One session, run by the engine and by the oracle at once."""

    def __init__(self, lengths_ms: tuple[int, ...], start_ms: int) -> None:
        self.spending = Spending(policy(), RollingWindows(lengths_ms))
        self.history = History(lengths_ms)
        self.entries: list[Entry | None] = []
        self.now_ms = start_ms
        self.caps: tuple[int | None, ...] = (8, 9, 10)
        self.single: tuple[int | None, int | None] = (None, None)

    def wait(self, gap_ms: int) -> None:
        self.now_ms += gap_ms

    def edit(self, caps: tuple[int | None, ...], single: tuple[int | None, int | None]) -> None:
        self.caps, self.single = caps, single

    def pay(self, amount: int) -> None:
        per_transaction, approval_above = self.single
        caps = dict(zip(WINDOW_RULES, self.caps, strict=True))
        in_force = limits(per_transaction=per_transaction, approval_above=approval_above, **caps)
        always = policy(limits=in_force, valid_from_ms=0, valid_until_ms=10**15)
        asked = request(amount=amount)
        expected = self.history.verdict(self.caps, *self.single, amount, self.now_ms)
        used = self.history.used(self.now_ms)

        decision = decide(always, Standing.ACTIVE, self.spending, asked, self.now_ms)

        assert (decision.code, decision.rule) == expected
        assert self.spending.windows.used(self.now_ms) == used
        if decision.allowed:
            self.entries.append(self.spending.add(self.now_ms, asked))
            self.history.spends.append(Spend(self.now_ms, [(self.now_ms, amount)], self.caps))
        elif decision.rule in WINDOW_RULES:
            window = WINDOW_RULES.index(decision.rule)
            cap = self.caps[window]
            assert cap is not None
            retry_at_ms = self.history.frees_at(window, used[window] + amount - cap, self.now_ms)
            assert decision.evidence["used"] == used[window]
            assert decision.evidence["retry_at_ms"] == retry_at_ms
        left = decision.remaining
        assert [left.per_day, left.per_week, left.per_month] == self.history.remaining(
            self.caps, self.now_ms
        )

    def settle(self, which: int, share: int) -> None:
        """Capture (part), void or expire any payment so far, in any order and again."""
        if not self.entries:
            return
        index = which % len(self.entries)
        entry = self.entries[index]
        if entry is not None:
            self.spending.windows.advance(self.now_ms)
            to_amount = entry.amount * share // 3
            self.spending.reduce(entry, to_amount)
            self.spending.reduce(entry, to_amount)
            self.history.spends[index].amounts.append((self.now_ms, to_amount))
        assert self.spending.windows.used(self.now_ms) == self.history.used(self.now_ms)

    def restart(self) -> None:
        windows = self.spending.windows
        windows.advance(self.now_ms)
        rebuilt = RollingWindows(windows.lengths_ms)
        handles = {id(entry): rebuilt.add(entry.decided_ms, entry.amount) for entry in windows}
        self.entries = [handles.get(id(entry)) for entry in self.entries]
        self.spending = Spending(policy(), rebuilt)
        assert self.spending.windows.used(self.now_ms) == self.history.used(self.now_ms)

    def check_every_instant(self) -> None:
        if self.history.lengths_ms == SMALL_MS:
            instants = set(range(self.history.spends[0].decided_ms - 1, self.now_ms + 13))
        else:
            instants = {
                moment + length_ms + offset_ms
                for spend in self.history.spends
                for moment in [since_ms for since_ms, _ in spend.amounts]
                for length_ms in (0, *REAL_MS)
                for offset_ms in (-1, 0, 1)
            }
        for t_ms in instants:
            if t_ms >= self.history.spends[0].decided_ms:
                assert self.history.overspent_at(t_ms) == [], t_ms


def steps(
    gaps_ms: st.SearchStrategy[int],
) -> st.SearchStrategy[list[tuple[str, tuple[object, ...]]]]:
    pay = st.tuples(st.just("pay"), st.tuples(st.integers(1, 6)))
    wait = st.tuples(st.just("wait"), st.tuples(gaps_ms))
    settle = st.tuples(st.just("settle"), st.tuples(st.integers(0, 30), st.integers(0, 3)))
    edit = st.tuples(st.just("edit"), st.tuples(st.tuples(CAPS, CAPS, CAPS), st.tuples(CAPS, CAPS)))
    restart = st.tuples(st.just("restart"), st.just(()))
    return st.lists(st.one_of(pay, wait, pay, wait, settle, pay, edit, restart), max_size=50)


def run(world: World, script: list[tuple[str, tuple[object, ...]]]) -> None:
    for action, arguments in script:
        getattr(world, action)(*arguments)
    if world.history.spends:
        world.check_every_instant()


REAL_GAPS_MS = st.one_of(
    st.sampled_from([length_ms + off for length_ms in (0, *REAL_MS) for off in (0, 1)]),
    st.sampled_from([length_ms - 1 for length_ms in REAL_MS]),
    st.sampled_from([REAL_MS[1] - REAL_MS[0], REAL_MS[2] - REAL_MS[1]]),
    st.integers(0, REAL_MS[2] * 2),
)


@settings(max_examples=200, deadline=None)
@given(steps(REAL_GAPS_MS))
def test_days_weeks_and_months_match_the_oracle(
    script: list[tuple[str, tuple[object, ...]]],
) -> None:
    run(World(REAL_MS, 1_800_000_000_000), script)


@settings(max_examples=200, deadline=None)
@given(steps(st.integers(0, 13)))
def test_windows_of_a_few_milliseconds_match_the_oracle(
    script: list[tuple[str, tuple[object, ...]]],
) -> None:
    run(World(SMALL_MS, 100), script)


def test_all_short_histories_match_the_oracle() -> None:
    """Every sequence of 4 payments of 2 amounts and 5 gaps, under windows of 2, 3 and 5 ms."""
    amounts, gaps_ms = (1, 2), (0, 1, 2, 3, 5)
    for first, sequence in product(amounts, product(product(gaps_ms, amounts), repeat=3)):
        world = World((2, 3, 5), 100)
        world.edit((2, 3, 4), (None, None))
        world.pay(first)
        for gap_ms, amount in sequence:
            world.wait(gap_ms)
            world.pay(amount)


@pytest.mark.parametrize("field", WINDOW_RULES)
def test_a_full_window_stays_shut_at_every_offset_until_its_last_millisecond(field: str) -> None:
    """Spend all of it, then try again at every offset in windows of 3 seconds."""
    index = WINDOW_RULES.index(field)
    lengths_ms = ((3000, 4000, 5000), (2000, 3000, 4000), (1000, 2000, 3000))[index]
    capped = policy(limits=limits(**{field: 100}), valid_from_ms=0, valid_until_ms=10**15)
    asked = request(amount=100)
    spending = Spending(capped, RollingWindows(lengths_ms))
    spending.add(1, asked)
    for offset_ms in range(3000):
        denied = decide(capped, Standing.ACTIVE, spending, asked, 1 + offset_ms)
        assert (denied.code, denied.evidence["retry_at_ms"]) == ("LIMIT_EXCEEDED", 3001)
    assert decide(capped, Standing.ACTIVE, spending, asked, 3001).allowed


def test_a_burst_at_one_instant_is_allowed_up_to_the_limit_and_not_below() -> None:
    capped = policy(limits=limits(per_day=1000))
    spending = Spending(capped)
    now_ms = capped.valid_from_ms
    allowed = 0
    for _ in range(5000):
        if decide(capped, Standing.ACTIVE, spending, request(amount=1), now_ms).allowed:
            spending.add(now_ms, request(amount=1))
            allowed += 1
    assert allowed == 1000


def test_without_a_limit_a_window_holds_what_can_still_be_written_exactly() -> None:
    """2^53 - 1 micro-USD: a larger sum has no place in a record."""
    unlimited = policy(limits=limits(), valid_from_ms=0, valid_until_ms=10**15)
    spending = Spending(unlimited)
    for _ in range(9):
        spending.add(0, request(amount=10**15 - 1))
    left = 2**53 - 1 - 9 * (10**15 - 1)
    assert decide(unlimited, Standing.ACTIVE, spending, request(amount=left), 1).allowed
    denied = decide(unlimited, Standing.ACTIVE, spending, request(amount=left + 1), 1)
    assert (denied.code, denied.rule) == ("LIMIT_EXCEEDED", "per_day")
    assert denied.evidence["limit"] == 2**53 - 1
    assert denied.remaining.per_day is None
