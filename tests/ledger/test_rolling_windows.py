"""Through the ledger, across restarts and clock steps: no window ever holds more than its limit."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.errors import Conflict
from engine.ledger.payment import Payment
from engine.policy.limits import DAY_MS, WEEK_MS, Limits
from engine.sessions.session import SessionView
from tests.ledger.asking import ask, at_once
from tests.ledger.oracle import Budget, Records, Spend, query, read_records
from tests.world import USD, WORKSPACE, World

DAY = Limits(None, 100 * USD, None, None, None)
WEEK = Limits(None, None, 100 * USD, None, None)
HOUR_MS = 3_600_000
TTL_MS = 900_000


def code(payment: Payment) -> str:
    return str(payment.decision["code"])


def go_on(world: World, restart: bool) -> None:
    if restart:
        world.reopen()


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
@pytest.mark.parametrize(
    ("limits", "length_ms"), [(DAY, DAY_MS), (WEEK, WEEK_MS)], ids=["day", "week"]
)
def test_what_was_spent_leaves_at_the_end_of_its_window_and_not_before(
    world: World, clock: ManualClock, limits: Limits, length_ms: int, restart: bool
) -> None:
    clock.now_ms = clock.now_ms // 1000 * 1000 + 1  # the week ends before the session's last second
    view = world.session(limits, duration_ms=WEEK_MS)
    for round_ms in range(0, WEEK_MS, length_ms):
        assert world.pay(view, 100).state == "captured", round_ms
        for step_ms in (0, 1, length_ms // 2, length_ms // 2 - 2):
            clock.advance(step_ms)
            go_on(world, restart and round_ms == 0)
            denied = ask(world, view, 1).result()
            assert code(denied) == "LIMIT_EXCEEDED"
            assert denied.decision["evidence"]["retry_at_ms"] == view.created_ms + (
                round_ms + length_ms
            )
        clock.advance(1)
        go_on(world, restart)
    assert clock.now_ms == view.created_ms + WEEK_MS
    assert world.pay(view, 100).state == "captured"


@pytest.mark.parametrize("offset_ms", [*range(-1500, 1501, 250), -2, -1, 1, 2])
def test_a_spend_on_both_sides_of_a_window_s_end_never_exceeds_it(
    world: World, clock: ManualClock, offset_ms: int
) -> None:
    """A tumbling window would allow twice its limit here."""
    view = world.session(DAY, duration_ms=4 * DAY_MS)
    clock.advance(DAY_MS - 1)
    assert world.pay(view, 100).state == "captured"
    clock.advance(DAY_MS + offset_ms)
    allowed = ask(world, view, 1).result().state == "captured"
    assert allowed == (offset_ms >= 0)


def test_the_instant_a_denial_names_is_the_first_that_allows(
    world: World, clock: ManualClock
) -> None:
    view = world.session(DAY, duration_ms=3 * DAY_MS)
    for _ in range(10):
        world.pay(view, 10)
        clock.advance(HOUR_MS)
    denied = world.pay(view, 35)
    clock.now_ms = denied.decision["evidence"]["retry_at_ms"] - 1
    assert code(world.pay(view, 35)) == "LIMIT_EXCEEDED"
    clock.advance(1)
    assert world.pay(view, 35).state == "captured"


def test_a_hold_counts_from_its_decision_also_when_it_is_captured_later(
    world: World, clock: ManualClock
) -> None:
    view = world.session(DAY, duration_ms=3 * DAY_MS)
    payment = world.pay(view, 100, hold=True)
    clock.advance(TTL_MS - 1)
    world.engine.ledger.capture(WORKSPACE, payment.id).result()
    clock.now_ms = payment.decided_ms + DAY_MS - 1
    world.reopen()
    assert code(world.pay(view, 1)) == "LIMIT_EXCEEDED"
    clock.advance(1)
    assert world.pay(view, 100).state == "captured"


def test_after_a_restart_exactly_what_was_left_is_left(world: World) -> None:
    view = world.session(DAY)
    for _ in range(6):
        world.pay(view, 10, hold=True)
    world.reopen()
    assert world.engine.remaining(view).per_day == 40 * USD
    assert code(ask(world, view, 40 * USD + 1).result()) == "LIMIT_EXCEEDED"
    assert world.pay(view, 40).state == "captured"


def test_a_burst_at_the_edge_is_allowed_up_to_the_limit_exactly(world: World) -> None:
    """64 callers, 2560 requests of one unit, a limit of 1000 units: 1000 are allowed."""
    view = world.session(Limits(None, 1000, None, None, None))
    answers = at_once(
        64, lambda _: [ask(world, view, 1, hold=n % 2 == 0).result() for n in range(40)]
    )
    paid = [payment for some in answers if isinstance(some, list) for payment in some]
    assert len(paid) == 2560
    assert sum(payment.decision["allowed"] for payment in paid) == 1000
    assert {code(payment) for payment in paid} == {"ALLOWED", "LIMIT_EXCEEDED"}
    assert world.engine.remaining(view).per_day == 0


def test_sessions_do_not_take_from_each_other(world: World) -> None:
    views = [world.session(Limits(None, 50, None, None, None)) for _ in range(8)]
    answers = at_once(32, lambda n: [ask(world, views[n % 8], 1).result() for _ in range(20)])
    paid = [payment for some in answers if isinstance(some, list) for payment in some]
    allowed = [payment.session_id for payment in paid if payment.decision["allowed"]]
    assert sorted(allowed) == sorted(view.id for view in views for _ in range(50))


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
@pytest.mark.parametrize("back_ms", [1, HOUR_MS, DAY_MS, 400 * DAY_MS])
def test_a_clock_that_goes_back_gives_no_budget_back(
    fresh: World, back_ms: int, restart: bool
) -> None:
    view = fresh.session(DAY, duration_ms=3 * DAY_MS)
    first = fresh.pay(view, 90)
    hold = fresh.pay(view, 10, hold=True)
    fresh.clock.advance(-back_ms)
    go_on(fresh, restart)
    denied = ask(fresh, view, 1).result()
    assert code(denied) == "LIMIT_EXCEEDED"
    assert denied.decided_ms == hold.decided_ms
    fresh.clock.now_ms = first.decided_ms + TTL_MS - 1
    assert fresh.engine.remaining(view).per_day == 0
    fresh.clock.advance(1)
    assert fresh.engine.remaining(view).per_day == 10 * USD
    fresh.clock.now_ms = first.decided_ms + DAY_MS - 1
    assert code(fresh.pay(view, 11)) == "LIMIT_EXCEEDED"
    fresh.clock.advance(1)
    assert fresh.pay(view, 100).state == "captured"
    records = Records()
    records.feed(read_records(fresh.store))


def test_a_clock_that_goes_back_after_a_look_at_the_budget_stops_nobody(fresh: World) -> None:
    view = fresh.session(DAY, duration_ms=3 * DAY_MS)
    fresh.pay(view, 60)
    fresh.clock.advance(DAY_MS)
    assert fresh.engine.remaining(view).per_day == 100 * USD
    fresh.clock.advance(-HOUR_MS)
    assert fresh.pay(view, 100).decided_ms == fresh.clock.now_ms + HOUR_MS


STEPS = st.one_of(
    st.tuples(st.just("pay"), st.integers(1, 60)),
    st.tuples(st.just("hold"), st.integers(1, 60)),
    st.tuples(st.just("capture"), st.integers(0, 60)),
    st.tuples(st.just("void"), st.integers(0, 7)),
    st.tuples(
        st.just("wait"),
        st.sampled_from([1, TTL_MS - 1, TTL_MS, HOUR_MS, DAY_MS - TTL_MS, DAY_MS - 1, DAY_MS]),
    ),
    st.tuples(st.just("restart"), st.just(0)),
)


@settings(max_examples=8)
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_any_life_of_a_session_is_as_the_plain_model_says(
    world: World, clock: ManualClock, steps: list[tuple[str, int]]
) -> None:
    limits = Limits(50 * USD, 100 * USD, 180 * USD, 200 * USD, None)
    view = world.session(limits, duration_ms=WEEK_MS)
    life = Life(world, clock, view, limits)
    for step, number in steps:
        if clock.now_ms + DAY_MS < view.expires_ms:
            life.take(step, number)


class Life:
    """Does each step with the engine and with a model that sums everything every time."""

    def __init__(self, world: World, clock: ManualClock, view: SessionView, limits: Limits) -> None:
        self.world, self.clock, self.view = world, clock, view
        names = ("per_transaction", "per_day", "per_week", "per_month", "approval_above")
        self.model = Budget({name: getattr(limits, name) for name in names})
        self.payments: list[Payment] = []

    def take(self, step: str, number: int) -> None:
        if step in ("pay", "hold"):
            self.pay(number * USD, hold=step == "hold")
        elif step in ("capture", "void") and self.payments:
            self.end(self.payments[number % len(self.payments)], step, number * USD)
        elif step == "wait":
            self.clock.advance(number)
            for spend in self.model.spends.values():
                if spend.held and spend.expires_ms <= self.clock.now_ms:
                    spend.held, spend.amount = False, 0
        elif step == "restart":
            self.world.reopen()
        remaining = self.world.engine.remaining(self.view)
        assert {
            name: getattr(remaining, name) for name in ("per_day", "per_week", "per_month")
        } == self.model.remaining(self.clock.now_ms)

    def pay(self, amount: int, *, hold: bool) -> None:
        rule = self.model.refusal(amount, self.clock.now_ms)
        payment = ask(self.world, self.view, amount, hold=hold).result()
        assert payment.decision["rule"] == (rule or "all")
        if rule is None:
            assert payment.expires_ms is not None
            spend = Spend(self.clock.now_ms, amount, hold, payment.expires_ms)
            self.model.spends[payment.id] = spend
            self.payments.append(payment)

    def end(self, payment: Payment, step: str, amount: int) -> None:
        spend = self.model.spends[payment.id]
        amount = max(1, min(amount, spend.amount)) if step == "capture" else 0
        ledger = self.world.engine.ledger
        future = (
            ledger.capture(WORKSPACE, payment.id, amount)
            if step == "capture"
            else ledger.void(WORKSPACE, payment.id)
        )
        if spend.held:
            assert future.result().captured == amount
            spend.held, spend.amount = False, amount
        elif not isinstance(future.exception(), Conflict):
            assert future.result().replayed
            assert future.result().captured == spend.amount == amount


def test_the_plain_sums_of_the_records_agree_after_a_crowd(world: World) -> None:
    limits = Limits(None, 500, None, None, None)
    views = [world.session(limits) for _ in range(3)]
    done = threading.Event()

    def call(number: int) -> None:
        if number == 0:
            while not done.is_set():
                world.engine.expiry.holds.run()
            return
        for round_number in range(12):
            view = views[(number + round_number) % 3]
            payment = ask(world, view, 1 + number % 9, hold=number % 4 != 0).result()
            if payment.state != "held":
                continue
            if number % 4 == 1:
                world.engine.ledger.capture(WORKSPACE, payment.id, 1).result()
            elif number % 4 == 2:
                world.engine.ledger.void(WORKSPACE, payment.id).result()
        if number == 1:
            done.set()

    assert at_once(40, call) == [None] * 40
    records = Records()
    records.feed(read_records(world.store))
    for view in views:
        left = records.budgets[view.id].remaining(world.clock())["per_day"]
        assert left == world.engine.remaining(view).per_day
    data_file = world.store
    assert query(data_file, "SELECT count(*) FROM decisions") == [(len(records.decided),)]
