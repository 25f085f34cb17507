"""Sums of payments by day, agent and token: those that reading everything again comes to."""

import itertools
import random

import pytest
import sqlalchemy as sa

from engine.clock import ManualClock
from engine.ledger import analytics
from engine.ledger.analytics import DAYS_MAX, Analytics, Sum, Sums
from engine.policy.limits import DAY_MS, Limits
from tests.world import NO_LIMITS, USD, WORKSPACE, World

_numbers = itertools.count()


def counted_anew(world: World, clock: ManualClock) -> Sums:
    return Analytics(world.engine.database, clock).sums(WORKSPACE, DAYS_MAX)


def test_sums_go_on_from_what_was_counted(
    world: World, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics, "PAYMENTS_PER_READ_MAX", 3)
    draw = random.Random(5)
    views = [
        world.session(
            Limits(50 * USD, None, None, None, None), agent_id=agent, duration_ms=DAY_MS * 7
        )
        for agent in ("a", "b", "b")
    ]
    other = world.session(workspace=_another(world))
    kept = Analytics(world.engine.database, clock)
    held = []
    for _ in range(25):
        payment = world.pay(draw.choice(views), draw.choice((1, 2, 51)), hold=draw.random() < 0.5)
        if payment.state == "held":
            held.append(payment)
        if held and draw.random() < 0.4:
            ended = held.pop(draw.randrange(len(held)))
            end = world.engine.ledger.void if draw.random() < 0.3 else world.engine.ledger.capture
            end(WORKSPACE, ended.id).result()
        world.pay(other, 7)
        clock.advance(draw.choice((0, 1_000, 100_000)))
        if draw.random() < 0.3:
            assert kept.sums(WORKSPACE, DAYS_MAX) == counted_anew(world, clock)
    clock.advance(DAY_MS)
    world.engine.expiry.holds.run()
    world.pay(views[0], 9)
    found = kept.sums(WORKSPACE, DAYS_MAX)
    assert found == counted_anew(world, clock)
    total = Sum()
    for each in found.values():
        for name in Sum.__slots__:
            setattr(total, name, getattr(total, name) + getattr(each, name))
    with world.engine.database.reading() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT state, count(*), sum(captured) FROM decisions "
                "WHERE workspace_id = :workspace GROUP BY 1"
            ),
            {"workspace": WORKSPACE},
        ).all()
    assert {state: count for state, count, _ in rows} == {
        name: getattr(total, name) for name in ("captured", "denied", "expired", "voided")
    }
    assert total.micro_usd == sum(captured for _, _, captured in rows)
    assert {key.agent_id for key in found} == {"a", "b"}
    assert {key.agent_id for key in kept.sums(WORKSPACE, DAYS_MAX, "a")} == {"a"}


def test_what_is_over_is_not_read_again(world: World, clock: ManualClock) -> None:
    mine = _another(world)
    view = world.session(workspace=mine)
    kept = Analytics(world.engine.database, clock)
    for _ in range(3):
        world.pay(view, 1)
    hold = world.pay(view, 2, hold=True)
    clock.advance(analytics.SETTLING_MS + 1)
    world.pay(view, 1)
    assert [each.captured for each in kept.sums(mine, 2).values()] == [4]
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(analytics, "_count", lambda _sums, row: read.append(row.id))
        kept.sums(mine, 2)
    assert len(read) == 2  # the one that is open, and the newest
    world.engine.ledger.capture(mine, hold.id).result()
    [total] = kept.sums(mine, 2).values()
    assert (total.captured, total.micro_usd, total.held) == (5, 6 * USD, 0)


def test_only_the_days_that_are_asked_for(world: World, clock: ManualClock) -> None:
    mine = _another(world)
    for _ in range(4):
        world.pay(world.session(NO_LIMITS, workspace=mine, duration_ms=DAY_MS), 1)
        clock.advance(DAY_MS)
    today = clock() // DAY_MS
    kept = Analytics(world.engine.database, clock)
    assert sorted(key.day for key in kept.sums(mine, 4)) == [today - 3, today - 2, today - 1]
    assert [key.day for key in kept.sums(mine, 2)] == [today - 1]
    clock.advance((DAYS_MAX - 2) * DAY_MS)
    assert [key.day for key in kept.sums(mine, DAYS_MAX)] == [today - 1]
    assert Analytics(world.engine.database, clock).sums(mine, DAYS_MAX) == kept.sums(mine, DAYS_MAX)


def test_active_sessions_are_those_that_may_pay(world: World, clock: ManualClock) -> None:
    mine = _another(world)
    going = world.session(workspace=mine, duration_ms=DAY_MS)
    world.engine.revoke_session(mine, world.session(workspace=mine).id, by="test")
    kept = Analytics(world.engine.database, clock)
    assert (kept.active(mine), kept.active(mine, "nobody")) == ((1, 0), (0, 0))
    clock.advance(going.expires_ms - clock())
    assert kept.active(mine) == (0, 0)


def _another(world: World) -> str:
    name = f"workspace-{next(_numbers)}"
    world.engine.access.create_workspace(name, name)
    return name
