"""While an approval waits the clock goes on, policies change and budgets are spent: one outcome."""

import itertools
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.errors import (
    Conflict,
)
from engine.policy.budgets import BudgetLimits
from tests.ledger.approving import (
    ABOVE_50,
    TTL_MS,
    asked_for,
    first_key,
    grant,
    new_key,
    replayed,
    revoke_key,
    shown,
    told,
)
from tests.ledger.asking import at_once
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World, records_of


@pytest.mark.parametrize("swept", [False, True], ids=["before the sweep", "after the sweep"])
@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
@pytest.mark.parametrize("act", ["grant", "deny"])
def test_it_is_over_from_the_millisecond_of_its_expiry(
    world: World, clock: ManualClock, act: str, offset_ms: int, swept: bool
) -> None:
    view = world.session(ABOVE_50)
    waiting = asked_for(world, view)
    clock.advance(TTL_MS + offset_ms)
    if swept:
        world.engine.tick()
        assert ("approval.expired" in told(world, view)) == (offset_ms >= 0)
    state = "waiting" if offset_ms < 0 else "expired"
    assert shown(world, waiting.id).state == state, "swept or not"
    listed, _ = world.engine.approvals.page(
        WORKSPACE, clock(), session_id=view.id, state=state, offset=0, limit=9
    )
    assert [each.id for each in listed] == [waiting.id]
    decide = getattr(world.engine.approvals, act)
    if offset_ms < 0:
        after = decide(WORKSPACE, waiting.id, by=first_key(world))
        assert after.state == {"grant": "granted", "deny": "denied"}[act]
    else:
        with pytest.raises(Conflict) as refused:
            decide(WORKSPACE, waiting.id, by=first_key(world))
        assert refused.value.code == "approval_expired"
        world.engine.tick()
        assert told(world, view)[2:] == ["approval.expired"], "once"
        after = shown(world, waiting.id)
        assert (after.state, after.payment_id) == ("expired", None)
    replayed(world, view)


def test_whoever_asks_again_after_the_expiry_gets_another_though_nobody_swept(
    world: World, clock: ManualClock
) -> None:
    view = world.session(ABOVE_50)
    first = asked_for(world, view)
    clock.advance(TTL_MS)
    world.engine.tick()
    second = asked_for(world, view)
    assert second.id != first.id
    assert shown(world, first.id).state == "expired"
    assert grant(world, second, first_key(world)).state == "granted"
    replayed(world, view)


def test_the_sweep_ends_each_once_and_only_those_that_are_over(fresh: World) -> None:
    views = [fresh.session(ABOVE_50) for _ in range(3)]
    for dollars in range(51, 61):
        for view in views[:2]:
            fresh.pay(view, dollars)
    fresh.clock.advance(1)  # type: ignore[attr-defined]
    late = asked_for(fresh, views[2])
    fresh.clock.advance(TTL_MS - 1)  # type: ignore[attr-defined]
    assert [fresh.engine.expiry.approvals.run() for _ in range(2)] == [20, 0]
    assert shown(fresh, late.id).state == "waiting"
    states = query(fresh.store, "SELECT state, count(*) FROM approvals GROUP BY state ORDER BY 1")
    assert states == [("expired", 20), ("waiting", 1)]


@pytest.mark.parametrize(("after_ms", "counts"), [(-1, False), (0, True), (1_000, True)])
def test_a_grant_counts_after_its_expiry_as_it_did_then(
    fresh: World, after_ms: int, counts: bool
) -> None:
    """Whenever that is recorded: what a key is worth later changes nothing of it."""
    view, key = fresh.session(ABOVE_50, approvals_required=2), new_key(fresh)
    waiting = grant(fresh, asked_for(fresh, view), key)
    fresh.clock.advance(TTL_MS + after_ms)  # type: ignore[attr-defined]
    revoke_key(fresh, key)
    fresh.clock.advance(1 + 5_000)  # type: ignore[attr-defined]
    for swept in (False, True):
        assert fresh.engine.expiry.approvals.run() == 1 if swept else True
        found = shown(fresh, waiting.id)
        assert (found.state, [each.counts for each in found.grants]) == ("expired", [counts])
    replayed(fresh, view)


@pytest.mark.parametrize("then", ["restricted", "lifted again"])
def test_a_policy_that_changed_meanwhile_refuses_it(world: World, then: str) -> None:
    keys = [new_key(world) for _ in range(2)]
    view = world.session(ABOVE_50, approvals_required=2)
    waiting, restrict = asked_for(world, view), world.engine.sessions.restrict
    grant(world, waiting, keys[0])
    restrict(WORKSPACE, view.id, ("never merchant casino",), by="test")
    if then == "lifted again":
        restrict(WORKSPACE, view.id, (), by="test")
    after = grant(world, waiting, keys[1])
    assert (after.state, after.code, after.payment_id) == ("refused", "POLICY_CHANGED", None)
    assert [given.key_id for given in after.grants] == [keys[0]]
    with pytest.raises(Conflict) as refused:
        grant(world, waiting, keys[1])
    assert refused.value.code == "approval_refused"
    again = asked_for(world, view)
    assert (again.state, again.policy_version) == ("waiting", 2 if then == "restricted" else 3)
    assert grant(world, again, keys[0]).state == "waiting", "a grant of another approval"
    assert grant(world, again, keys[1]).state == "granted"
    replayed(world, view)


def test_whoever_asks_again_after_a_change_of_policy_gets_another(world: World) -> None:
    view = world.session(ABOVE_50)
    first = asked_for(world, view)
    world.engine.sessions.restrict(WORKSPACE, view.id, ("never merchant casino",), by="test")
    second = asked_for(world, view)
    assert second.id != first.id
    assert shown(world, first.id).code == "POLICY_CHANGED"
    replayed(world, view)


def spend(world: World, view: Any) -> None:
    for _ in range(4):
        world.pay(view, 49)


def budget(world: World, view: Any) -> None:
    """A budget of its agent, which the session does not know of."""
    limits = BudgetLimits(per_day=59 * USD)
    world.engine.budgets.set(WORKSPACE, view.agent_id, limits, by="test")


def revoke(world: World, view: Any) -> None:
    world.engine.revoke_session(WORKSPACE, view.id, by="test")


def time_out(world: World, view: Any) -> None:
    world.clock.advance(601_000)  # type: ignore[attr-defined]
    world.engine.tick()


@pytest.mark.parametrize(
    ("meanwhile", "code", "rule"),
    [
        (spend, "LIMIT_EXCEEDED", "per_day"),
        (budget, "LIMIT_EXCEEDED", "agent_budget"),
        (revoke, "SESSION_REVOKED", "revoked"),
        (time_out, "SESSION_EXPIRED", "valid_until"),
    ],
)
def test_what_no_longer_fits_is_refused_with_that_decision(
    world: World, meanwhile: Any, code: str, rule: str
) -> None:
    view = world.session(ABOVE_50, agent_id=f"agent-{code}-{rule}", duration_ms=600_000)
    waiting = asked_for(world, view, key="k")
    meanwhile(world, view)
    before = world.engine.remaining(view)
    after = grant(world, waiting, first_key(world))
    assert (after.state, after.code) == ("refused", code)
    assert after.payment_id is not None
    decided = world.engine.payments.get(WORKSPACE, after.payment_id)
    assert (decided.state, decided.decision["rule"], decided.captured) == ("denied", rule, 0)
    assert decided.approval_id == waiting.id
    assert world.engine.remaining(view) == before
    assert grant(world, waiting, first_key(world)) == after
    assert told(world, view)[-2:] == ["payment.decided", "approval.refused"]
    assert world.pay(view, 60, key="k").decision["code"] == "APPROVAL_REQUIRED"
    replayed(world, view)


ENDS = ("approval.denied", "approval.expired", "approval.refused")


@pytest.mark.parametrize("grants_before", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("against", ["a denial", "a revocation", "the clock", "all of them"])
def test_a_race_of_everybody_has_one_outcome(
    world: World, clock: ManualClock, against: str, grants_before: int
) -> None:
    """Grants by many keys, requests and sweeps against what comes once some have been answered."""
    keys = [new_key(world) for _ in range(6)]
    view = world.session(ABOVE_50, approvals_required=3)
    waiting = asked_for(world, view)
    clock.advance(TTL_MS - 1)
    world.engine.tick()
    begun, answered = threading.Event(), itertools.count(1)

    def grant_with(key: str) -> Any:
        try:
            return grant(world, waiting, key)
        finally:
            if next(answered) >= grants_before:
                begun.set()

    def then(act: Callable[[], Any]) -> Any:
        assert grants_before == 0 or begun.wait(60)
        return act()

    deny = partial(world.engine.approvals.deny, WORKSPACE, waiting.id, by=keys[0])
    acts: dict[str, Callable[[], Any]] = {
        "a denial": deny,
        "a revocation": partial(revoke, world, view),
        "the clock": partial(clock.advance, 1),
    }
    chosen = acts if against == "all of them" else {against: acts[against]}
    calls = [partial(then, act) for act in chosen.values()]
    calls += [partial(grant_with, key) for key in keys * 3]
    calls += [world.engine.expiry.approvals.run, partial(world.pay, view, 60)] * 3
    random.Random(grants_before).shuffle(calls)
    answers = at_once(len(calls), lambda number: calls[number]())
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    assert {type(error) for error in errors} <= {Conflict}
    world.engine.tick()
    after = shown(world, waiting.id)
    assert after.state in ("granted", "denied", "expired", "refused")
    rows = query(world.store, "SELECT state, amount FROM decisions WHERE session_id = ?", view.id)
    paid = [row for row in rows if row[0] != "denied"]
    assert paid == ([("captured", 60 * USD)] if after.state == "granted" else [])
    assert len({given.key_id for given in after.grants}) == len(after.grants)
    ends = [
        record.kind
        for record in records_of(world, view)
        if record.body.get("approval") == waiting.id
        and (record.kind in ENDS or record.body.get("hold_expires_ms") is not None)
    ]
    assert ends == [{"granted": "payment.decided"}.get(after.state, f"approval.{after.state}")]
    replayed(world, view)
