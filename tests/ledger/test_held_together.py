"""A batch finds at once which budgets its payments are under, and what it found stays found.

On PostgreSQL whoever decides a payment holds the budgets above it. A batch that learns of one that
it does not hold is begun again: once, and not for each session, or of as many as a server has that
spend under budgets none would ever be decided without.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from engine.db.postgres import PostgresDatabase
from engine.ledger.ask import ask
from engine.ledger.payment import Payment
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from engine.workspaces.agent_keys import NewAgentKey
from tests.anvil_world import wait_until
from tests.ledger.asking import one_batch
from tests.world import USD, WORKSPACE, World

STORES = ("postgresql",)
DAY = Limits(None, 100 * USD, None, None, None)
AGENTS = 6


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The transactions that are begun, by the streams that they hold."""
    seen: list[Sequence[str]] = []
    begin = PostgresDatabase.begin

    def note(self: PostgresDatabase, streams: Sequence[str]) -> Any:
        seen.append(streams)
        return begin(self, streams)

    monkeypatch.setattr(PostgresDatabase, "begin", note)
    return seen


def under_a_budget(world: World, agent_id: str) -> SessionView:
    view = world.session(DAY, agent_id=agent_id)
    world.engine.budgets.set(WORKSPACE, agent_id, BudgetLimits(per_day=50 * USD), by="test")
    return view


def pay(world: World, views: Sequence[SessionView]) -> list[str]:
    """A dollar of each, in one batch."""
    memo = {"description": None, "metadata_json": "{}"}
    asks = [ask(each.id, world.request(1), memo=memo, capture=True) for each in views]
    answers = world.engine.ledger.authorise_many(asks).result()
    return [each.state for each in answers if isinstance(each, Payment)]


def test_of_many_sessions_it_is_found_at_once(fresh: World, begun: list[Sequence[str]]) -> None:
    views = [under_a_budget(fresh, f"agent-{number}") for number in range(AGENTS)]
    begun.clear()
    assert pay(fresh, views) == ["captured"] * AGENTS
    assert [len(streams) for streams in begun] == [AGENTS, 2 * AGENTS]
    begun.clear()
    assert pay(fresh, views) == ["captured"] * AGENTS
    assert [len(streams) for streams in begun] == [2 * AGENTS]


def test_who_is_new_has_nobody_else_found_again(fresh: World, begun: list[Sequence[str]]) -> None:
    views = [under_a_budget(fresh, f"agent-{number}") for number in range(AGENTS)]
    pay(fresh, views)
    new = fresh.session(DAY, agent_id="agent-0")
    begun.clear()
    assert pay(fresh, [new]) == ["captured"]
    assert [len(streams) for streams in begun] == [1, 2]
    begun.clear()
    for some in (views[:3], views[3:]):
        assert pay(fresh, some) == ["captured"] * 3
    assert [len(streams) for streams in begun] == [6, 6]


def test_what_is_changed_is_found_and_what_was_cleared_is_not_held(
    fresh: World, begun: list[Sequence[str]]
) -> None:
    view = under_a_budget(fresh, "agent-0")
    pay(fresh, [view])
    fresh.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=2 * USD), by="test")
    assert pay(fresh, [view]) == ["captured"]  # one paid before counts as well
    begun.clear()
    assert pay(fresh, [view]) == ["denied"]
    assert [len(streams) for streams in begun] == [3]
    fresh.engine.budgets.clear(WORKSPACE, None, by="test")
    fresh.engine.budgets.clear(WORKSPACE, "agent-0", by="test")
    pay(fresh, [view])
    begun.clear()
    assert pay(fresh, [view]) == ["captured"]
    assert [len(streams) for streams in begun] == [1]


def test_keys_that_are_counted_are_held_in_one_order_however_requests_come(fresh: World) -> None:
    """Else two processes would wait for each other, with everybody in their batches."""
    new = NewAgentKey(name="key", agent_id="bot")
    made = [fresh.engine.keys.agents.create(WORKSPACE, new, by="test") for _ in range(2)]
    (lower, _), (higher, _) = keys = sorted(made, key=lambda each: each[0].id)
    lock = "SELECT 1 FROM agent_keys WHERE id = %s FOR UPDATE SKIP LOCKED"
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    url = str(fresh.settings.database and fresh.settings.database.get_secret_value())
    with psycopg.connect(url) as first, psycopg.connect(url, autocommit=True) as looking:
        assert first.execute(lock, [lower.id]).fetchone()
        with one_batch(fresh.engine.writer):
            admitted = [fresh.engine.keys.use.admit(secret, None)[1] for _, secret in keys[::-1]]
        wait_until(lambda: looking.execute(waits).fetchone() is not None)
        assert looking.execute(lock, [higher.id]).fetchone(), "the first of them is not held yet"
        first.rollback()
        assert [future.result().limit for future in admitted] == [higher.rate_limit_per_hour] * 2
