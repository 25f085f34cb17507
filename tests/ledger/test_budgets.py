"""Budgets above the session: the sum over all sessions under one is never over it."""

import random
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.ledger import budgets
from engine.ledger.ask import ask as ask_for
from engine.ledger.batch import Batch
from engine.ledger.payment import Payment
from engine.ledger.stream import budget_stream
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import DAY_MS, Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD, SUM_MAX_MICRO_USD
from engine.sessions.session import SessionView
from tests.ledger.approving import replayed
from tests.ledger.asking import START_MS, ask, at_once
from tests.ledger.conftest import opened
from tests.ledger.oracle import alter
from tests.servers import PostgresServer
from tests.world import USD, WORKSPACE, World


def set_budget(world: World, budget: str, limits: BudgetLimits | None) -> None:
    agent = budget.removeprefix("agent:") if budget != "workspace" else None
    if agent is not None:
        world.engine.agents.register(WORKSPACE, agent, None)
    if limits is None:
        world.engine.budgets.clear(WORKSPACE, agent, by="test")
    else:
        world.engine.budgets.set(WORKSPACE, agent, limits, by="test")


def test_an_agents_budget_binds_all_its_sessions_and_no_others(fresh: World) -> None:
    set_budget(fresh, "agent:bot", BudgetLimits(per_day=100 * USD))
    one, two = fresh.session(), fresh.session()
    other = fresh.session(agent_id="another")
    assert fresh.pay(one, 60).state == "captured"
    denied = fresh.pay(two, 41)
    assert (denied.decision["code"], denied.decision["rule"]) == ("LIMIT_EXCEEDED", "agent_budget")
    assert denied.decision["evidence"]["budget"] == "agent:bot"
    assert denied.decision["evidence"]["used"] == 60 * USD
    assert fresh.pay(two, 40).state == "captured"
    set_budget(fresh, "workspace", BudgetLimits(per_week=5000 * USD, payments_per_hour=9))
    fresh.pay(other, 5, hold=True)
    told = fresh.engine.ledger.budgets_used(WORKSPACE).result()
    used = {each: [(str(gauge.cap), gauge.used) for gauge in told[each]] for each in told}
    assert used == {
        "agent:bot": [("day at most 100 USD", 100 * USD)],
        "workspace": [("at most 9 payments per hour", 3), ("week at most 5000 USD", 105 * USD)],
    }
    some = fresh.engine.ledger.budgets_used(WORKSPACE, "agent:bot", "agent:x").result()
    assert [*some] == ["agent:bot"]
    assert fresh.engine.ledger.budgets_used("elsewhere").result() == {}
    assert fresh.pay(other, 500).state == "captured"


def test_a_sum_that_no_record_can_hold_is_told_as_the_largest_that_one_can(fresh: World) -> None:
    views = [fresh.session() for _ in range(2)]
    for view in views * 9:
        assert fresh.pay(view, 0, amount=AMOUNT_MAX_MICRO_USD).state == "captured"
    set_budget(fresh, "workspace", BudgetLimits(per_day=100 * USD))
    denied = fresh.pay(views[0], 1)
    assert denied.decision["evidence"]["used"] == SUM_MAX_MICRO_USD
    replayed(fresh, views[0])


def test_all_that_a_session_hands_on_is_found_in_what_its_children_are_denied(fresh: World) -> None:
    """By who reads the records: each limit is called by a name that leads back to it."""
    merchant = "merchant books at most 30 USD per hour"
    sentences = [f"at most 9 payments per {per}" for per in ("hour", "day", "lifetime")]
    limits = Limits(None, 900 * USD, 900 * USD, 900 * USD, None)
    one_by_one = [
        *((limits, (sentence.replace("9", "2"),)) for sentence in sentences),
        (limits, ("lifetime at most 2 USD",)),
        (limits, (merchant.replace("30", "2"),)),
        *((replace(limits, **{per: 2 * USD}), ()) for per in ("per_day", "per_week", "per_month")),
    ]
    named = set()
    for limit, conditions in one_by_one:
        parent = fresh.session(limit, conditions=conditions)
        child = fresh.session(limit, conditions=conditions, parent_id=parent.id)
        assert [fresh.pay(each, 1).state for each in (parent, child)] == ["captured"] * 2
        denied = fresh.pay(child, 1)
        assert denied.decision["rule"] == "ancestor_budget"
        named.add(denied.decision["evidence"]["name"])
        replayed(fresh, child)
    assert len(named) == len(one_by_one)


def test_what_was_paid_before_counts(fresh: World) -> None:
    one, two = fresh.session(), fresh.session(agent_id="another")
    fresh.pay(one, 30)
    held = fresh.pay(two, 30, hold=True)
    set_budget(fresh, "workspace", BudgetLimits(per_day=100 * USD))
    assert fresh.pay(two, 41).decision["rule"] == "workspace_budget"
    fresh.engine.ledger.void(WORKSPACE, held.id).result()
    assert fresh.pay(two, 70).state == "captured"
    assert fresh.pay(one, 1).state == "denied"


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
def test_holds_captures_voids_and_expiries_are_followed(fresh: World, restart: bool) -> None:
    set_budget(fresh, "workspace", BudgetLimits(payments_per_day=4, per_day=100 * USD))
    views = [fresh.session(duration_ms=3 * DAY_MS) for _ in range(2)]
    ledger = fresh.engine.ledger
    part = fresh.pay(views[0], 50, hold=True)
    ledger.capture(WORKSPACE, part.id, 10 * USD).result()
    gone = fresh.pay(views[1], 50, hold=True)
    ledger.void(WORKSPACE, gone.id).result()
    over = fresh.pay(views[1], 40, hold=True)
    if restart:
        fresh.reopen()
    fresh.clock.advance(over.expires_ms - fresh.clock())  # type: ignore[attr-defined, operator]
    assert fresh.pay(views[0], 91).decision["rule"] == "workspace_budget"
    assert fresh.pay(views[0], 90).state == "captured"
    if restart:
        fresh.reopen()
    fresh.clock.advance(DAY_MS)  # type: ignore[attr-defined]
    assert [fresh.pay(view, 1).state for view in views * 2] == ["captured"] * 4
    denied = fresh.pay(views[0], 1)
    assert denied.decision["evidence"]["name"] == "payments_per_day"


def test_a_budget_that_is_changed_or_ended_is_so_at_once(fresh: World) -> None:
    view = fresh.session()
    set_budget(fresh, "workspace", BudgetLimits(lifetime=10 * USD))
    assert fresh.pay(view, 11).state == "denied"
    set_budget(fresh, "workspace", BudgetLimits(lifetime=20 * USD))
    assert fresh.pay(view, 11).state == "captured"
    assert fresh.pay(view, 11).state == "denied"
    set_budget(fresh, "workspace", None)
    assert fresh.pay(view, 11).state == "captured"
    set_budget(fresh, "workspace", BudgetLimits(lifetime=23 * USD))
    assert fresh.pay(view, 2).state == "denied"
    assert fresh.pay(view, 1).state == "captured"


def test_twenty_sessions_race_and_use_exactly_all_of_it(fresh: World) -> None:
    set_budget(fresh, "agent:bot", BudgetLimits(per_day=200 * USD))
    views = [fresh.session() for _ in range(20)]

    def call(caller: int) -> list[Payment]:
        asked: list[Future[Payment]] = [ask(fresh, views[caller], USD) for _ in range(20)]
        return [future.result() for future in asked]

    answers = [payment for answer in at_once(20, call) for payment in answer]  # type: ignore[union-attr]
    assert sum(payment.captured for payment in answers) == 200 * USD
    assert {p.decision["rule"] for p in answers if p.state == "denied"} == {"agent_budget"}


def test_both_databases_decide_the_same(tmp_path: Path, postgres: PostgresServer) -> None:
    """Byte for byte, for the same seed: answers, and what they rest on."""
    streams = []
    for store in ("sqlite", "postgresql"):
        clock = ManualClock(START_MS)
        for world in opened(tmp_path / store, store, clock, postgres):
            rng = random.Random(20261121)
            views = [world.session() for _ in range(4)]
            place = {view.id: f"session {n}" for n, view in enumerate(views)}
            set_budget(world, "workspace", BudgetLimits(per_day=300 * USD, payments_per_hour=60))
            answers: list[object] = []
            held: list[Payment] = []
            for step in range(400):
                clock.advance(rng.choice((0, 1, 999, 600_000)))
                if held and rng.random() < 0.4:
                    payment = held.pop(rng.randrange(len(held)))
                    ledger = world.engine.ledger
                    end = ledger.void if rng.random() < 0.5 else ledger.capture
                    try:
                        answers.append(end(WORKSPACE, payment.id).result().state)
                    except Exception as error:  # noqa: BLE001 (it is the answer)
                        answers.append(repr(error))
                    continue
                view = rng.choice(views)
                hold = rng.random() < 0.5
                payment = ask(
                    world, view, rng.randrange(1, 40) * USD, hold=hold, key=f"{rng.randrange(300)}"
                )  # type: ignore[assignment]
                try:
                    done = payment.result()  # type: ignore[attr-defined]
                except Exception as error:  # noqa: BLE001
                    answers.append(str(error))
                    continue
                answers.append(
                    (step, place[done.session_id], done.number, done.state, done.replayed)
                )
                answers.append(done.decision)
                if done.state == "held" and not done.replayed:
                    held.append(done)
            streams.append(repr(answers))
    assert streams[0] == streams[1]
    assert "workspace_budget" in streams[0]


def test_what_is_spent_beneath_a_session_counts_against_it(fresh: World) -> None:
    root = fresh.session(limits(100), merchants=("books", "films"))
    assert fresh.pay(root, 10).state == "captured"
    first = child(fresh, root)
    second = child(fresh, root)
    grandchild = child(fresh, first)
    assert fresh.pay(grandchild, 40).state == "captured"
    hold = fresh.pay(second, 50, hold=True)
    for view in (root, first, second, grandchild):
        denied = fresh.pay(view, 1).decision
        assert (denied["code"], denied["rule"]) == ("LIMIT_EXCEEDED", "ancestor_budget"), view
        assert denied["evidence"]["budget"] == f"session:{root.id}"
        assert denied["evidence"]["used"] == 100 * USD
    fresh.engine.ledger.capture(WORKSPACE, hold.id, 20 * USD).result()
    fresh.reopen()
    assert fresh.pay(root, 31).state == "denied"
    assert fresh.pay(first, 30).state == "captured"
    assert fresh.pay(second, 1).state == "denied"


def test_what_a_session_holds_when_it_delegates_first_counts_with_what_is_beneath(
    fresh: World,
) -> None:
    root = fresh.session(limits(100), merchants=("books",))
    assert fresh.pay(root, 60, hold=True).state == "held"
    beneath = child(fresh, root)
    denied = fresh.pay(beneath, 41).decision
    assert (denied["rule"], denied["evidence"]["used"]) == ("ancestor_budget", 60 * USD)
    assert fresh.pay(beneath, 40).state == "captured"


def test_a_session_is_at_its_limit_for_as_long_as_the_budget_that_denied_it_is_damaged(
    fresh: World,
) -> None:
    set_budget(fresh, "workspace", BudgetLimits(per_day=50 * USD))
    view = fresh.session()
    fresh.pay(view, 40)
    frees_ms = fresh.pay(view, 20).decision["evidence"]["retry_at_ms"]
    assert alter(fresh.store, "UPDATE budgets SET limits_json = '{'") == 1
    fresh.engine.writer._forget_all()
    assert fresh.engine.ledger.left(view.id).result().frees_ms == frees_ms
    set_budget(fresh, "workspace", BudgetLimits(per_day=60 * USD))
    assert fresh.engine.ledger.left(view.id).result().frees_ms is None


def test_so_many_budgets_are_in_memory_and_one_that_was_let_go_is_right_when_read_again(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, read = fresh.engine.ledger.memory.budgets._known, list[str]()
    follow = budgets.Known.follow

    def note(self: budgets.Known, batch: Batch) -> None:
        read.append(self.stream)
        follow(self, batch)

    monkeypatch.setattr(budgets.Known, "follow", note)
    monkeypatch.setattr(budgets, "KNOWN_MAX", 2)
    set_budget(fresh, "workspace", BudgetLimits(per_day=5_000 * USD))
    roots = [fresh.session(limits(100), merchants=("books",)) for _ in range(4)]
    children = [child(fresh, root) for root in roots]
    first, mine = children[0], budget_stream(WORKSPACE, f"session:{roots[0].id}")
    held = fresh.pay(first, 50, hold=True)
    part = fresh.pay(roots[0], 20, hold=True)

    def let_go() -> None:
        assert mine in known
        for view in children[1:]:
            assert fresh.pay(view, 1).state == "captured"
            assert len(known) <= 2 + 1, "what was kept, and what the batch needed besides"
        assert mine not in known
        assert budget_stream(WORKSPACE, "workspace") in known, "it was used last by everybody"

    let_go()
    denied = fresh.pay(first, 31).decision
    assert (denied["rule"], denied["evidence"]["used"]) == ("ancestor_budget", 70 * USD)
    let_go()
    fresh.engine.ledger.capture(WORKSPACE, part.id, 10 * USD).result()
    assert fresh.pay(first, 41).state == "denied"
    let_go()
    fresh.engine.ledger.void(WORKSPACE, held.id).result()
    assert fresh.pay(first, 91).state == "denied"
    over = fresh.pay(first, 90, hold=True)
    assert over.expires_ms is not None
    let_go()
    fresh.clock.advance(over.expires_ms - fresh.clock())  # type: ignore[attr-defined]
    assert fresh.pay(first, 91).state == "denied"
    assert fresh.pay(first, 90).state == "captured"
    let_go()

    # However many one batch needs, each is read once for all of it.
    asks = [
        ask_for(view.id, fresh.request(1), memo={"description": None, "metadata_json": "{}"})
        for view in (*children, *roots) * 2
    ]
    read.clear()
    answers = fresh.engine.ledger.authorise_many(asks).result()
    assert [getattr(each, "state", each) for each in answers].count("held") == 3 * 4
    assert mine in read
    assert len(read) == len(set(read))
    assert len(known) == len(roots) + 1
    assert fresh.pay(first, 1).state == "denied"
    assert len(known) == 2 + 1
    replayed(fresh, first)


def test_a_condition_of_a_session_binds_what_is_beneath_it(fresh: World) -> None:
    said = "merchant books at most 30 USD per day"
    root = fresh.session(limits(100), conditions=(said,))
    beneath = [child(fresh, root, conditions=(said,)) for _ in range(2)]
    assert fresh.pay(beneath[0], 20).state == "captured"
    denied = fresh.pay(beneath[1], 11).decision
    assert (denied["rule"], denied["evidence"]["name"]) == ("ancestor_budget", said)
    assert fresh.pay(beneath[1], 50, merchant="films").state == "captured"
    assert fresh.pay(root, 10).state == "captured"
    assert fresh.pay(root, 1).state == "denied"


def test_a_restriction_of_a_session_binds_what_is_beneath_it_at_once(fresh: World) -> None:
    root = fresh.session(limits(100))
    beneath = child(fresh, root)
    for view in (beneath, root):
        assert fresh.pay(view, 10).state == "captured"
    fresh.engine.sessions.restrict(WORKSPACE, root.id, ["lifetime at most 25 USD"], by="test")
    assert fresh.pay(beneath, 16).decision["rule"] == "lifetime"
    assert fresh.pay(beneath, 6).decision["rule"] == "ancestor_budget"
    assert fresh.pay(beneath, 5).state == "captured"


def limits(per_day: int) -> Limits:
    return Limits(None, per_day * USD, None, None, None)


def child(world: World, parent: SessionView, **changes: Any) -> SessionView:
    return world.session(
        limits(100),
        parent_id=parent.id,
        **{"merchants": parent.grant.merchants, "duration_ms": 3_600_000, **changes},
    )


def test_a_session_is_paused_by_a_budget_above_it_for_as_long_as_that_denies(
    fresh: World,
) -> None:
    view, other = fresh.session(), fresh.session()

    def pauses() -> bool:
        return fresh.engine.ledger.left(view.id).result().frees_ms is not None

    set_budget(fresh, "agent:bot", BudgetLimits(per_day=10 * USD))
    hold = fresh.pay(other, 10, hold=True)
    assert (fresh.pay(view, 5).decision["rule"], pauses()) == ("agent_budget", True)
    set_budget(fresh, "agent:bot", BudgetLimits(per_day=14 * USD))  # not enough yet
    assert pauses()
    fresh.engine.ledger.void(WORKSPACE, hold.id).result()
    assert not pauses()
    fresh.pay(other, 12)
    assert pauses()
    set_budget(fresh, "agent:bot", None)
    assert not pauses()
    fresh.reopen()
    assert not pauses()
