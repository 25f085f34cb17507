"""Every row that is about a session says whose it is, of which type, and under which label."""

import contextlib
import sqlite3
from typing import Any

import pytest

from engine.ledger.discrepancies import PARAMETERS_DIFFER, note
from engine.policy.budgets import BudgetLimits
from tests.ledger.approving import ABOVE_50, asked_for
from tests.ledger.paying import signed
from tests.world import USD, WORKSPACE, World

STORES = ("sqlite",)

NAMES_WHO_PAYS = {"payment_intents"}
"""An intent is nobody's until a session pays it; the payment then has all of it."""
ABOUT_SESSIONS = {
    "session_keys": "session_id",
    "decisions": "session_id",
    "approvals": "session_id",
    "records": "stream",
    "outbox": "stream",
    "budget_entries": "session_id",
    "chain_transactions": "session_id",
    "discrepancies": "session_id",
    "settlements": "session_id",
}


def rows(world: World, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(world.store)) as raw:
        return raw.execute(sql, values).fetchall()


@pytest.mark.parametrize(("kind", "label"), [("agent", None), ("app", "groceries, weekly")])
def test_workspace_type_and_label_stand_in_every_row(
    world: World, kind: str, label: str | None
) -> None:
    world.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=1000 * USD), by="test")
    view = world.session(ABOVE_50, mint_pkp=True, type=kind, label=label)
    asked_for(world, view)
    signed(world, view)
    held = world.pay(view, 1, hold=True)
    world.engine.ledger.capture(WORKSPACE, held.id, USD).result()
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    world.engine.tick()
    world.engine.writer.call(
        lambda batch: note(batch, PARAMETERS_DIFFER, view.id, "critical", {}, view.stream)
    )
    for table, column in ABOUT_SESSIONS.items():
        found = rows(
            world,
            f"SELECT DISTINCT workspace_id, session_type, label FROM {table} WHERE {column} = ?",
            view.id,
        )
        assert found == [(WORKSPACE, kind, label)], table
    stored = rows(world, "SELECT workspace_id, type, label FROM sessions WHERE id = ?", view.id)
    assert stored == [(WORKSPACE, kind, label)]


def test_no_table_with_a_session_is_left_out(world: World) -> None:
    tables = [name for (name,) in rows(world, "SELECT name FROM sqlite_master WHERE type='table'")]
    with_session = {
        table
        for table in tables
        for column in rows(world, f"PRAGMA table_info({table})")
        if column[1] in ("session_id", "stream")
    }
    assert with_session - NAMES_WHO_PAYS == set(ABOUT_SESSIONS)
