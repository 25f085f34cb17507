"""What is over is ended whatever the rows of one session hold, and the next start does without."""

from typing import NamedTuple

import pytest

from engine.policy.budgets import BudgetLimits
from engine.sessions.session import SessionView
from tests.ledger.approving import ABOVE_50
from tests.ledger.oracle import alter, query
from tests.world import USD, WORKSPACE, World

OVER_MS = 8 * 86_400_000
"""From now on every hold, approval and session of these tests is over."""
OTHER = "ws_other"


class Damage(NamedTuple):
    """One row of a session, and what is written over it."""

    table: str
    column: str
    to: str
    where: str


DAMAGES = {
    "a payment is other": Damage(
        "decisions", "captured", "0", "session_id = ? AND state = 'captured'"
    ),
    "a hold is voided": Damage("decisions", "state", "'voided'", "session_id = ? AND number = 3"),
    "the grant is none": Damage("sessions", "grant_json", "'{}'", "id = ?"),
    "the state is none": Damage("sessions", "state", "'zzz'", "id = ?"),
    "no conditions": Damage("sessions", "restrictions_json", "'{'", "id = ?"),
    "the last record is none": Damage(
        "records", "body", "substr(body, 2)", "stream = ? AND seq = 5"
    ),
    "the record of a hold is none": Damage(
        "records", "body", "substr(body, 2)", "stream = ? AND seq = 3"
    ),
    "the memo of a hold is none": Damage(
        "decisions", "memo_json", "'{'", "session_id = ? AND number = 3"
    ),
    "a budget is none": Damage(
        "budgets", "limits_json", "'{\"per_day\": true}'", f"workspace_id = '{OTHER}' AND id <> ?"
    ),
}


def busy(world: World, workspace: str) -> SessionView:
    """A session with a payment, a hold and an approval that waits."""
    view = world.create(ABOVE_50, mint_pkp=False, workspace=workspace)
    world.pay(view, 10)
    world.pay(view, 20, hold=True)
    denied = world.pay(view, 60)
    assert denied.approval_id is not None
    return view


def states(world: World, view: SessionView) -> list[str]:
    """How its payment, its hold, its approval and itself stand."""
    return [
        *(row[0] for row in query(world.store, DECISIONS, view.id)),
        *(row[0] for row in query(world.store, APPROVALS, view.id)),
        *(row[0] for row in query(world.store, "SELECT state FROM sessions WHERE id = ?", view.id)),
    ]


DECISIONS = "SELECT state FROM decisions WHERE session_id = ? ORDER BY number"
APPROVALS = "SELECT state FROM approvals WHERE session_id = ? ORDER BY number"
BEGUN = ["captured", "held", "denied", "waiting", "active"]
ENDED = ["captured", "expired", "denied", "expired", "expired"]


@pytest.mark.parametrize(
    ("name", "stopped"),
    # An engine that finds another record than it sealed does not start.
    [(name, at) for name in DAMAGES for at in (False, True) if not (at and "record" in name)],
)
def test_who_is_damaged_keeps_nobody_waiting(fresh: World, name: str, stopped: bool) -> None:
    check(fresh, DAMAGES[name], stopped=stopped)


def check(fresh: World, damage: Damage, *, stopped: bool) -> None:
    """What is over is ended for all but who is damaged, who is not before the row is mended."""
    engine = fresh.engine
    engine.access.create_workspace(OTHER, OTHER)
    engine.budgets.set(OTHER, None, BudgetLimits(per_day=500 * USD), by="test")
    before, damaged, after = (busy(fresh, each) for each in (WORKSPACE, OTHER, WORKSPACE))
    assert states(fresh, before) == BEGUN
    assert query(fresh.store, "SELECT max(seq) FROM records WHERE stream = ?", damaged.id) == [(5,)]
    if stopped:
        engine.close()
    kept = query(
        fresh.store, f"SELECT {damage.column} FROM {damage.table} WHERE {damage.where}", damaged.id
    )
    change = f"UPDATE {damage.table} SET {damage.column} = {damage.to} WHERE {damage.where}"
    assert alter(fresh.store, change, damaged.id) == len(kept) == 1
    fresh.clock.advance(OVER_MS)  # type: ignore[attr-defined]
    if stopped:
        fresh.engine = fresh._open()
    else:
        engine.writer._forget_all()
        fresh.engine.tick()
    for _ in range(2):
        fresh.engine.tick()
    assert [states(fresh, each) for each in (before, after)] == [ENDED, ENDED]
    assert fresh.engine.ready()["ready"]
    assert fresh.engine.writer.fault is None
    other = fresh.session(ABOVE_50)
    assert fresh.pay(other, 1).state == "captured"

    fresh.engine.close()
    mended = f"UPDATE {damage.table} SET {damage.column} = ? WHERE {damage.where}"
    assert alter(fresh.store, mended, kept[0][0], damaged.id) == 1
    fresh.engine = fresh._open()
    for _ in range(2):
        fresh.engine.tick()
    assert states(fresh, damaged) == ENDED
