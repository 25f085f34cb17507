"""Who has to be refused is refused before anything is written, and costs nobody else a thing.

A refusal after that gives up the whole batch and all that is in memory, of every workspace, and is
not even heard: the caller is told to ask again.
"""

from collections.abc import Callable

import pytest

from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.ledger.ask import ask
from engine.policy.budgets import BudgetLimits
from engine.sessions.inventory import left_of_each
from engine.sessions.session import SessionView
from tests.ledger.approving import ABOVE_50, TTL_MS, asked_for, first_key, grant, replayed, shown
from tests.ledger.intending import confirm, intent, now
from tests.ledger.oracle import alter, query
from tests.ledger.paying import accepted, ask_gate, offer, settled, signed
from tests.world import USD, WORKSPACE, World, records_of

STORES = ("sqlite",)
OTHER = "other"

Act = Callable[[], object]


@pytest.fixture
def forgotten(fresh: World) -> list[str]:
    """What was given up, from when somebody begins to look (`watch`)."""
    return []


def watch(world: World, forgotten: list[str]) -> SessionView:
    """A session of another workspace, which is in memory from now on."""
    world.engine.access.create_workspace(OTHER, "Other")
    other = world.session(workspace=OTHER)
    world.engine.writer._forget_all()
    assert world.pay(other, 1).state == "captured"
    world.engine.writer.on_abandoned_batch(lambda: forgotten.append("all"))
    return other


def refused(act: Act, code: str) -> None:
    with pytest.raises(Unavailable) as found:
        act()
    assert found.value.code == code


def pass_time(world: World, ms: int) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(ms)


# What is done first, while all is well, and then of what is damaged.


def pays_with_a_hold_over(world: World, view: SessionView) -> Act:
    world.pay(view, 5, hold=True)
    pass_time(world, TTL_MS)
    return lambda: world.pay(view, 1)


def pays_with_an_approval_over(world: World, view: SessionView) -> Act:
    asked_for(world, view)
    pass_time(world, TTL_MS)
    return lambda: world.pay(view, 1)


def asks_what_is_left_with_a_hold_over(world: World, view: SessionView) -> Act:
    world.pay(view, 5, hold=True)
    pass_time(world, TTL_MS)
    return lambda: world.engine.ledger.left(view.id).result()


def captures(world: World, view: SessionView) -> Act:
    held = world.pay(view, 5, hold=True)
    return lambda: world.engine.ledger.capture(WORKSPACE, held.id).result()


def voids(world: World, view: SessionView) -> Act:
    held = world.pay(view, 5, hold=True)
    return lambda: world.engine.ledger.void(WORKSPACE, held.id).result()


def grants(world: World, view: SessionView) -> Act:
    waiting = asked_for(world, view)
    return lambda: grant(world, waiting, first_key(world))


def settles(world: World, view: SessionView) -> Act:
    found = signed(world, view)
    return lambda: settled(world, found)


def accepts(world: World, view: SessionView) -> Act:
    found = signed(world, view)
    return lambda: accepted(world, found)


def signs_what_was_granted(world: World, view: SessionView) -> Act:
    dear = offer(world, 60 * USD)
    denied = ask_gate(world, view, dear, key="dear")
    grant(world, shown(world, denied.approval_id), first_key(world))
    return lambda: ask_gate(world, view, dear, key="dear")


@pytest.mark.parametrize(
    "begin",
    [
        pays_with_a_hold_over,
        pays_with_an_approval_over,
        asks_what_is_left_with_a_hold_over,
        captures,
        voids,
        grants,
        settles,
        accepts,
        signs_what_was_granted,
    ],
)
def test_a_damaged_budget_is_heard_of_and_costs_no_other(
    fresh: World, forgotten: list[str], begin: Callable[[World, SessionView], Act]
) -> None:
    view = fresh.session(ABOVE_50)
    fresh.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=500 * USD), by="test")
    act = begin(fresh, view)
    other = watch(fresh, forgotten)
    known = fresh.engine.ledger.memory.accounts.known
    account, before = known[other.id], len(records_of(fresh, view))
    [(limits,)] = query(fresh.store, "SELECT limits_json FROM budgets")
    assert alter(fresh.store, "UPDATE budgets SET limits_json = '{'") == 1
    for _ in range(2):
        refused(act, "budget_damaged")
    fresh.engine.tick()
    assert forgotten == []
    assert known[other.id] is account
    assert alter(fresh.store, "UPDATE budgets SET limits_json = ?", limits) == 1
    act()
    assert len(records_of(fresh, view)) > before or "left" in begin.__name__
    replayed(fresh, view)


def test_a_list_shows_whose_hold_is_over_beneath_a_damaged_budget(
    fresh: World, forgotten: list[str]
) -> None:
    view, ledger = fresh.session(), fresh.engine.ledger
    fresh.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=500 * USD), by="test")
    fresh.pay(view, 5, hold=True)
    other = watch(fresh, forgotten)
    alter(fresh.store, "UPDATE budgets SET limits_json = '{'")
    pass_time(fresh, TTL_MS)
    listed, _ = fresh.engine.sessions.page(WORKSPACE, offset=0, limit=9)
    assert [each.id for each in listed] == [view.id]
    gone, left = left_of_each(ledger.left, [*listed, other])
    assert gone is None
    assert left is not None
    assert forgotten == []


def captures_for_an_intent(world: World, view: SessionView) -> Act:
    held = confirm(world, *intent(world, 5, capture="manual"), view).payment
    return lambda: world.engine.ledger.capture(WORKSPACE, held.id).result()


def pays_with_the_hold_of_an_intent_over(world: World, view: SessionView) -> Act:
    confirm(world, *intent(world, 5, capture="manual"), view)
    return pays_with_a_hold_over(world, view)


def pays_with_the_approval_of_an_intent_over(world: World, view: SessionView) -> Act:
    confirm(world, *intent(world, 60), view)
    pass_time(world, TTL_MS)
    return lambda: world.pay(view, 1)


def grants_for_an_intent(world: World, view: SessionView) -> Act:
    denied = confirm(world, *intent(world, 60), view).payment
    assert denied.approval_id is not None
    waiting = shown(world, denied.approval_id)
    return lambda: grant(world, waiting, first_key(world))


def denies_for_an_intent(world: World, view: SessionView) -> Act:
    denied = confirm(world, *intent(world, 60), view).payment
    approval = str(denied.approval_id)
    return lambda: world.engine.approvals.deny(WORKSPACE, approval, by=first_key(world))


def confirms(world: World, view: SessionView) -> Act:
    made, secret = intent(world, 5)
    return lambda: confirm(world, made, secret, view)


def cancels(world: World, view: SessionView) -> Act:
    del view
    made, _ = intent(world, 5)
    assert now(world, made).state == "requires_payment"
    return lambda: world.engine.intents.cancel(WORKSPACE, made.id, by="test")


@pytest.mark.parametrize(
    "begin",
    [
        captures_for_an_intent,
        pays_with_the_hold_of_an_intent_over,
        pays_with_the_approval_of_an_intent_over,
        grants_for_an_intent,
        denies_for_an_intent,
        confirms,
        cancels,
    ],
)
def test_a_workspace_that_nothing_can_follow_is_heard_of_and_costs_no_other(
    fresh: World, forgotten: list[str], begin: Callable[[World, SessionView], Act]
) -> None:
    view = fresh.session(ABOVE_50)
    act = begin(fresh, view)
    last = "stream = ?1 AND seq = (SELECT max(seq) FROM records WHERE stream = ?1)"
    change = f"UPDATE records SET body = substr(body, 2) WHERE {last}"
    assert alter(fresh.store, change, WORKSPACE) == 1
    before = len(records_of(fresh, view))
    watch(fresh, forgotten)
    for _ in range(2):
        refused(act, "session_damaged")
    assert forgotten == []
    assert len(records_of(fresh, view)) == before


def test_a_session_that_nothing_can_follow_ends_not_and_costs_no_other(
    fresh: World, forgotten: list[str]
) -> None:
    view = fresh.session()
    fresh.pay(view, 1)
    last = "stream = ?1 AND seq = (SELECT max(seq) FROM records WHERE stream = ?1)"
    change = f"UPDATE records SET body = substr(body, 2) WHERE {last}"
    assert alter(fresh.store, change, view.id) == 1
    other = watch(fresh, forgotten)
    pass_time(fresh, view.expires_ms - fresh.clock())
    fresh.engine.expiry.sessions.run()
    assert forgotten == []
    assert fresh.engine.sessions.get(WORKSPACE, view.id).state == "active"
    assert other.id in fresh.engine.ledger.memory.accounts.known


def test_no_refusal_among_many_leaves_half_of_something_behind(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever may refuse after all: what it wrote before is not committed with the others'."""
    view = fresh.session()
    fresh.pay(view, 5, hold=True)
    pass_time(fresh, TTL_MS)

    def answer(*_: object) -> None:
        raise Unavailable("not now", code="not_now")

    monkeypatch.setattr(fresh.engine.ledger, "answer", answer)
    memo = {"description": None, "metadata_json": "{}"}
    asked = ask(view.id, fresh.request(1), memo=memo, capture=True)
    refused(lambda: fresh.engine.ledger.authorise_many([asked]).result(), "service_unavailable")
    assert "payment.expired" not in [each.kind for each in records_of(fresh, view)]
