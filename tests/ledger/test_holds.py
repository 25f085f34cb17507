"""An authorization is held, and then captured, voided or expired: one of them, once."""

import json
import random
import threading

import pytest
import sqlalchemy as sa

from engine.clock import ManualClock
from engine.db.database import ROWS_TOGETHER
from engine.errors import Conflict, InvalidInput, NotFound
from engine.ledger.account import number_of
from engine.ledger.ask import ask as prepared
from engine.ledger.payment import Payment
from engine.ledger.sweep import SWEPT_MAX
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.ledger.asking import ask, at_once
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World, records_of

DAY = Limits(None, 100 * USD, 100 * USD, 100 * USD, None)
TTL_MS = 900_000


def left(world: World, view: SessionView) -> int:
    """What is left of the day, which is what is left of the week and the month too."""
    remaining = world.engine.remaining(view)
    assert remaining.per_day == remaining.per_week == remaining.per_month
    assert remaining.per_day is not None
    return remaining.per_day // USD


def capture(world: World, payment: Payment, micro_usd: int | None = None) -> Payment:
    return world.engine.ledger.capture(WORKSPACE, payment.id, micro_usd).result()


def void(world: World, payment: Payment) -> Payment:
    return world.engine.ledger.void(WORKSPACE, payment.id).result()


def endings(world: World, payment: Payment) -> list[str]:
    """The kinds of the records that end a payment."""
    rows = query(
        world.store,
        "SELECT body FROM records WHERE stream = ? ORDER BY id",
        payment.session_id,
    )
    records = [json.loads(bytes(body)) for (body,) in rows]
    kinds = [r["kind"] for r in records if r["body"].get("payment") == payment.id]
    assert kinds[0] == "payment.decided"
    return kinds[1:]


def test_a_payment_at_once_is_captured_whole_and_counts(world: World) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 40)
    assert (payment.state, payment.captured) == ("captured", 40 * USD)
    assert left(world, view) == 60


def test_a_hold_takes_its_amount_as_long_as_it_is_open(world: World) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 100, hold=True)
    assert (payment.state, payment.captured) == ("held", 0)
    assert payment.expires_ms == payment.decided_ms + TTL_MS
    assert left(world, view) == 0
    assert world.pay(view, 1).decision["code"] == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("asked", "captured"),
    [(None, 60 * USD), (60 * USD, 60 * USD), (60 * USD - 1, 60 * USD - 1), (USD, USD), (1, 1)],
    ids=["all by default", "the hold", "the hold - 1", "a part", "the least"],
)
def test_a_capture_frees_what_it_leaves_at_once(
    world: World, asked: int | None, captured: int
) -> None:
    view = world.session(DAY)
    payment = capture(world, world.pay(view, 60, hold=True), asked)
    assert (payment.state, payment.captured, payment.amount) == ("captured", captured, 60 * USD)
    rest = ask(world, view, 100 * USD - captured, hold=True).result()
    assert rest.state == "held"
    assert ask(world, view, 1).result().decision["code"] == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    "amount", [60 * USD + 1, 0, -1, 2**63], ids=["the hold + 1", "nothing", "less", "2^63"]
)
def test_a_capture_of_more_than_the_hold_or_of_nothing_is_refused(
    world: World, amount: int
) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 60, hold=True)
    with pytest.raises(InvalidInput) as refused:
        capture(world, payment, amount)
    assert refused.value.field == "amount"
    assert left(world, view) == 40
    assert endings(world, payment) == []
    assert capture(world, payment).state == "captured"


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("amount", [None, 60 * USD, 25 * USD], ids=["all", "all, in words", "part"])
def test_the_same_capture_again_is_a_replay(
    world: World, amount: int | None, restart: bool
) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 60, hold=True)
    first = capture(world, payment, amount)
    if restart:
        world.reopen()
    before = left(world, view)
    again = capture(world, payment, amount)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.captured == first.captured
    assert left(world, view) == before == 100 - first.captured // USD
    assert endings(world, payment) == ["payment.captured"]


@pytest.mark.parametrize("other", [24 * USD, 26 * USD, None], ids=["less", "more", "all"])
def test_a_second_capture_of_another_amount_is_a_conflict(world: World, other: int | None) -> None:
    view = world.session(DAY)
    payment = capture(world, world.pay(view, 60, hold=True), 25 * USD)
    with pytest.raises(Conflict) as refused:
        capture(world, payment, other)
    assert refused.value.code == "payment_captured"
    assert left(world, view) == 75
    assert endings(world, payment) == ["payment.captured"]


def test_a_void_gives_everything_back_at_once_and_again_is_a_replay(world: World) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 100, hold=True)
    assert void(world, payment).state == "voided"
    assert world.pay(view, 100).state == "captured"
    assert void(world, payment).replayed
    assert left(world, view) == 0
    assert endings(world, payment) == ["payment.voided"]


@pytest.mark.parametrize("end", ["captured", "voided", "expired"])
def test_what_has_ended_stays_as_it_is(world: World, clock: ManualClock, end: str) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 60, hold=True)
    if end == "captured":
        capture(world, payment, 10 * USD)
    elif end == "voided":
        void(world, payment)
    else:
        clock.advance(TTL_MS)
        assert world.engine.expiry.holds.run() >= 1
    before = left(world, view)
    for other in ("captured", "voided"):
        if other != end:
            with pytest.raises(Conflict) as refused:
                _ = capture(world, payment) if other == "captured" else void(world, payment)
            assert refused.value.code == f"payment_{end}"
    assert left(world, view) == before
    assert endings(world, payment) == [f"payment.{end}"]
    assert world.engine.payments.get(WORKSPACE, payment.id).state == end


def test_a_denied_payment_cannot_be_captured(world: World) -> None:
    payment = world.pay(world.session(DAY), 101, hold=True)
    with pytest.raises(Conflict) as refused:
        capture(world, payment)
    assert refused.value.code == "payment_denied"


@pytest.mark.parametrize(
    "payment", ["pay_0_0", "", "pay_" + "0" * 26 + "_0", "pay_" + "0" * 26 + "_01"]
)
def test_a_payment_that_does_not_exist_is_not_found(world: World, payment: str) -> None:
    with pytest.raises(NotFound):
        world.engine.ledger.capture(WORKSPACE, payment).result()


def test_a_payment_of_another_workspace_is_not_found(world: World) -> None:
    world.engine.access.create_workspace("other", "Other")
    payment = world.pay(world.session(DAY), 1, hold=True)
    with pytest.raises(NotFound):
        world.engine.ledger.capture("other", payment.id).result()
    assert capture(world, payment).state == "captured"


@pytest.mark.parametrize("act", [capture, void])
@pytest.mark.parametrize("swept", [False, True], ids=["before the sweep", "after the sweep"])
@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
def test_a_hold_is_over_from_the_millisecond_of_its_expiry(
    world: World, clock: ManualClock, offset_ms: int, swept: bool, act: "type[capture]"
) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 100, hold=True)
    clock.advance(TTL_MS + offset_ms)
    if swept:
        world.engine.expiry.holds.run()
        state = world.engine.payments.get(WORKSPACE, payment.id).state
        assert state == ("held" if offset_ms < 0 else "expired")
    if offset_ms < 0:
        ended = act(world, payment)
        assert endings(world, payment) == [f"payment.{ended.state}"]
    else:
        with pytest.raises(Conflict) as refused:
            act(world, payment)
        assert refused.value.code == "payment_expired"
        assert world.pay(view, 100).state == "captured", "the budget is back, swept or not"
        assert endings(world, payment) == ["payment.expired"]


def test_a_hold_that_ran_out_while_nothing_ran_is_expired_by_the_start(
    world: World, clock: ManualClock
) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 100, hold=True)
    clock.advance(TTL_MS)
    world.reopen()
    assert world.engine.payments.get(WORKSPACE, payment.id).state == "expired"
    assert left(world, view) == 100


def test_the_sweep_works_in_slices_and_ends_every_hold_once(fresh: World) -> None:
    views = [fresh.session() for _ in range(2)]
    holds = SWEPT_MAX // 2 + 50
    asked = [ask(fresh, view, 1, hold=True) for _ in range(holds) for view in views]
    assert all(payment.result().state == "held" for payment in asked)
    fresh.clock.advance(TTL_MS)
    holds_over = fresh.engine.expiry.holds
    assert [holds_over.run() for _ in range(3)] == [SWEPT_MAX, 100, 0]
    data_file = fresh.store
    states = query(data_file, "SELECT state, count(*) FROM decisions GROUP BY state")
    assert states == [("expired", 2 * holds)]


def test_a_payment_that_ends_many_holds_of_its_session_ends_them_together(fresh: World) -> None:
    """Everybody in its batch waits for that, whoever's holds they are."""
    view, count = fresh.session(DAY), 2 * ROWS_TOGETHER + 1
    fresh.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=50 * USD), by="test")
    memo = {"description": None, "metadata_json": "{}"}
    request = fresh.request(amount=1)
    asks = [prepared(view.id, request, memo=memo) for _ in range(count)]
    held = [payment.number for payment in fresh.engine.ledger.authorise_many(asks).result()]
    fresh.clock.advance(TTL_MS)
    seen: list[str] = []
    writing = fresh.engine.database.writer.engine
    sa.event.listen(writing, "before_cursor_execute", lambda *told: seen.append(told[2]))
    assert fresh.pay(view, 50, hold=True).state == "held"
    assert len(seen) < count / 10
    ends = [each for each in records_of(fresh, view) if each.kind == "payment.expired"]
    assert [number_of(each.body["payment"]) for each in ends] == held
    rows = "SELECT state, captured, closed_ms FROM decisions WHERE number <= ?"
    assert set(query(fresh.store, rows, held[-1])) == {("expired", 0, fresh.clock())}
    told = "SELECT count(*) FROM outbox WHERE event = 'payment.expired'"
    assert query(fresh.store, told) == [(count,)]
    assert left(fresh, view) == 50


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("late_of_ten", "winners"),
    [(0, "captured voided"), (5, "captured voided expired"), (10, "expired")],
    ids=["before the expiry", "around the expiry", "after the expiry"],
)
def test_a_race_of_captures_voids_and_the_sweep_has_one_winner(
    world: World, clock: ManualClock, late_of_ten: int, winners: str, seed: int
) -> None:
    """50 captures of different amounts, 50 voids, sweeps, and the clock passing the expiry."""
    view = world.session(DAY)
    payment = world.pay(view, 60, hold=True)
    clock.advance(TTL_MS - 1)
    callers = list(range(110))
    random.Random(seed).shuffle(callers)
    late = threading.Event()

    def call(place: int) -> Payment | int:
        caller = callers[place]
        if caller == 100 and late_of_ten:
            clock.advance(1)
            late.set()
        if caller % 10 < late_of_ten:
            late.wait()
        if caller < 50:
            return capture(world, payment, (caller + 1) * USD)
        return void(world, payment) if caller < 100 else world.engine.expiry.holds.run()

    answers = at_once(len(callers), call)
    paid = [answer for answer in answers if isinstance(answer, Payment)]
    first = [answer for answer in paid if not answer.replayed]
    losers = [answer for answer in answers if isinstance(answer, Exception)]
    assert all(isinstance(loser, Conflict) for loser in losers)
    assert len(first) <= 1
    final = world.engine.payments.get(WORKSPACE, payment.id)
    if first:
        assert (final.state, final.captured) == (first[0].state, first[0].captured)
        assert all(answer.state == final.state for answer in paid)
        assert {loser.code for loser in losers if isinstance(loser, Conflict)} <= {
            f"payment_{final.state}",
            "payment_expired",
        }
    else:
        world.engine.expiry.holds.run()
        final = world.engine.payments.get(WORKSPACE, payment.id)
        assert final.state == "expired"
    assert final.state in winners.split()
    assert endings(world, payment) == [f"payment.{final.state}"]
    assert left(world, view) == 100 - final.captured // USD
