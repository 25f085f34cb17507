"""What changes above the sessions of one workspace costs no other workspace anything.

A session in memory is decided on without being read. Where every change of a budget, and every
first child of a session, had all of them read again, one workspace could slow down all.
"""

from collections.abc import Callable, Collection

import pytest

from engine.ledger import account_loading, accounts
from engine.ledger.batch import Batch
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.world import USD, WORKSPACE, World

STORES = ("sqlite",)
OTHER = "other"
DAY = Limits(None, 100 * USD, None, None, None)
Change = Callable[[World, SessionView], object]


def set_a_budget(world: World, _: SessionView) -> None:
    world.engine.budgets.set(WORKSPACE, "bot", BudgetLimits(per_day=50 * USD), by="test")


def open_a_first_child(world: World, parent: SessionView) -> None:
    world.session(DAY, parent_id=parent.id)


def restrict_what_delegates(world: World, parent: SessionView) -> None:
    world.session(DAY, parent_id=parent.id)
    world.engine.sessions.restrict(WORKSPACE, parent.id, ("never merchant casino",), by="test")


CHANGES: dict[str, Change] = {
    "a budget": set_a_budget,
    "a first child": open_a_first_child,
    "a restriction": restrict_what_delegates,
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions that are read from the database, by any engine."""
    seen: list[str] = []
    load = account_loading.load_accounts

    def note(batch: Batch, session_ids: Collection[str]) -> object:
        seen.extend(session_ids)
        return load(batch, session_ids)

    monkeypatch.setattr(account_loading, "load_accounts", note)
    monkeypatch.setattr(accounts, "load_accounts", note)
    return seen


def held_to_what_changed(
    changing: World, paying: World, change: Change, read: list[str]
) -> tuple[SessionView, SessionView]:
    """Two sessions with a payment each, of two workspaces; then something changes above one."""
    changing.engine.access.create_workspace(OTHER, "Other")
    ours = changing.session(DAY)
    theirs = changing.session(DAY, workspace=OTHER)
    changing.engine.budgets.set(OTHER, None, BudgetLimits(per_week=150 * USD), by="test")
    for view in (ours, theirs, ours, theirs):
        assert paying.pay(view, 5).state == "captured"
    read.clear()
    change(changing, ours)
    assert paying.pay(theirs, 10).state == "captured"
    assert theirs.id not in read
    paying.pay(ours, 1)
    assert ours.id in read
    return ours, theirs


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_in_one_process(fresh: World, change: Change, read: list[str]) -> None:
    _, theirs = held_to_what_changed(fresh, fresh, change, read)
    assert fresh.engine.remaining(theirs).per_day == 80 * USD


def test_in_another_process(pair: tuple[World, World], read: list[str]) -> None:
    first, second = pair
    ours, theirs = held_to_what_changed(first, second, set_a_budget, read)
    # The other heard of what it has to know, of each workspace's changes by themselves.
    assert second.pay(ours, 39).state == "captured"
    assert second.pay(ours, 1).decision["code"] == "LIMIT_EXCEEDED"
    first.engine.budgets.set(OTHER, None, BudgetLimits(per_week=25 * USD), by="test")
    assert second.pay(theirs, 6).decision["code"] == "LIMIT_EXCEEDED"
    first.engine.budgets.clear(WORKSPACE, "bot", by="test")
    assert second.pay(ours, 40).state == "captured"
