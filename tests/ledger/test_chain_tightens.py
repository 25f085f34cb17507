"""What tightens on the chain tightens on every database."""

from dataclasses import replace

import sqlalchemy as sa

from engine.db.tables import Session, table
from engine.policy.limits import Limits
from tests.sessions.hands import close_workspace, code, discrepancies, lower, now, replayed, rule
from tests.world import USD, WORKSPACE, World, records_of

GRANTED = Limits(50 * USD, 100 * USD, None, None, None)

_sessions = table(Session)


def test_lower_limits_bind_a_session_and_what_it_delegated(world: World) -> None:
    parent = world.session(GRANTED, mint_pkp=True)
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    child = world.create(GRANTED, **how)
    assert [rule(world, child, 20), rule(world, parent, 10)] == ["all", "all"]
    lower(world, parent, replace(GRANTED, per_day=40 * USD, per_transaction=9 * USD))
    assert [rule(world, child, 10), rule(world, parent, 10)] == ["per_transaction"] * 2
    assert [rule(world, child, 9), rule(world, child, 2)] == ["all", "ancestor_budget"]
    assert [rule(world, child, 1), rule(world, parent, 1)] == ["all", "ancestor_budget"]
    for view in (parent, child):
        replayed(world, view)
    assert now(world, parent).policy.limits.per_day == 40 * USD


def test_parameters_that_are_not_the_chains_pay_nothing(world: World) -> None:
    view = world.session(GRANTED, mint_pkp=True)
    assert code(world, view) == "ALLOWED"
    genuine = now(world, view).grant_hash
    row = sa.update(_sessions).where(_sessions.c.id == view.id)
    for grant_hash, expected in ((bytes(32), "PARAMETERS_MISMATCH"), (genuine, "ALLOWED")):
        world.engine.writer.call(
            lambda batch, stored=grant_hash: batch.update(row.values(grant_hash=stored))  # type: ignore[misc]
        )
        world.engine.tick()
        assert [code(world, view), code(world, view)] == [expected] * 2
        assert len(discrepancies(world, view)) == (expected != "ALLOWED")
    replayed(world, view)


def test_a_closed_workspace_has_no_live_session(fresh: World) -> None:
    views = [fresh.session(GRANTED, mint_pkp=True), fresh.session(GRANTED)]
    assert [code(fresh, view) for view in views] == ["ALLOWED"] * 2
    close_workspace(fresh)
    fresh.engine.tick()
    assert [code(fresh, view) for view in views] == ["SESSION_REVOKED"] * 2
    for _ in range(2):
        fresh.engine.tick()
    assert [r.kind for r in records_of(fresh, WORKSPACE)].count("workspace.closed") == 1
