"""Budgets of agents and workspaces: set, cleared, and read by the ledger."""

import sqlite3

import pytest

from engine.errors import InvalidInput, NotFound, Unavailable
from engine.ledger.budgets import stored_limits
from engine.policy.budgets import BudgetLimits
from tests.world import USD, WORKSPACE, World

DAY = BudgetLimits(per_day=100 * USD)
HOUR = BudgetLimits(payments_per_hour=3, lifetime=0)


def in_force(world: World, workspace_id: str = WORKSPACE) -> dict[str, BudgetLimits]:
    with world.engine.database.reading() as connection:
        return stored_limits(connection.execute, workspace_id)


def test_what_is_set_is_in_force_until_it_is_cleared(world: World) -> None:
    budgets = world.engine.budgets
    world.engine.agents.register(WORKSPACE, "bot", None)
    assert in_force(world) == {}
    budgets.set(WORKSPACE, None, DAY, by="key_1")
    budgets.set(WORKSPACE, "bot", HOUR, by="key_1")
    assert in_force(world) == {"agent:bot": HOUR, "workspace": DAY}
    assert in_force(world, "other") == {}
    world.reopen()
    assert in_force(world) == {"agent:bot": HOUR, "workspace": DAY}
    world.engine.budgets.clear(WORKSPACE, None, by="key_1")
    assert in_force(world) == {"agent:bot": HOUR}


def test_an_agent_cannot_be_mistaken_for_the_workspace(world: World) -> None:
    world.engine.agents.register(WORKSPACE, "workspace", None)
    world.engine.budgets.set(WORKSPACE, "workspace", HOUR, by="key_1")
    assert in_force(world) == {"agent:workspace": HOUR}
    assert world.pay(world.session(), 1).state == "captured"
    assert world.pay(world.session(agent_id="workspace"), 1).state == "denied"


def test_nobody_and_nothing_are_refused(world: World) -> None:
    budgets = world.engine.budgets
    with pytest.raises(NotFound):
        budgets.set(WORKSPACE, "nobody", DAY, by="key_1")
    with pytest.raises(InvalidInput):
        budgets.set(WORKSPACE, None, BudgetLimits(), by="key_1")
    with pytest.raises(NotFound):
        budgets.clear(WORKSPACE, None, by="key_1")
    with pytest.raises(NotFound):
        budgets.get(WORKSPACE, "nobody")


@pytest.mark.parametrize(
    "limits_json",
    ["x", "5", "[]", '{"per_day":"1"}', '{"per_day":-1}', '{"per_year":1}', '{"per_day":true}'],
)
def test_a_damaged_budget_is_no_budget_that_allows(world: World, limits_json: str) -> None:
    world.engine.budgets.set(WORKSPACE, None, DAY, by="key_1")
    world.engine.close()
    raw = sqlite3.connect(world.settings.data_dir / "ledger.sqlite3")
    raw.execute("UPDATE budgets SET limits_json = ?", (limits_json,))
    raw.commit()
    raw.close()
    world.engine = world._open()
    for ask in (
        lambda: world.pay(world.session(), 1),
        lambda: world.engine.budgets.get(WORKSPACE, None),
        lambda: world.engine.budgets.list(WORKSPACE),
    ):
        with pytest.raises(Unavailable) as refused:
            ask()
        assert refused.value.code == "budget_damaged"
