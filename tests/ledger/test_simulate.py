"""A dry run says what the ledger would decide, and when it would allow, and changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.errors import NotFound, Unavailable
from engine.ledger.account import Account
from engine.ledger.dry_run import dry_run
from engine.ledger.stream import Stream
from engine.policy.budgets import BudgetLimits
from engine.policy.decision import Standing
from engine.policy.explain import Explanation, explain
from engine.policy.limits import DAY_MS, Limits
from engine.sessions.session import SessionView
from tests.ledger.asking import START_MS, ask
from tests.ledger.oracle import query
from tests.ledger.paying import offer, signed
from tests.policy.samples import NOW_MS, conditions, limits, policy, request
from tests.world import NO_LIMITS, USD, WORKSPACE, World

TTL_MS = 900_000
DAY = Limits(None, 100 * USD, None, None, None)
WEEK_LONG = {"duration_ms": 7 * DAY_MS}


def simulate(world: World, view: SessionView, micro_usd: int, **changes: Any) -> Explanation:
    request = world.request(amount=micro_usd, **changes)
    return world.engine.ledger.simulate(view.id, request).result()


def dump(world: World) -> dict[str, list[str]]:
    """All rows of all tables, read by a connection of its own."""
    names = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if isinstance(world.store, Path)
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    return {
        name: sorted(map(repr, query(world.store, f"SELECT * FROM {name}")))
        for (name,) in query(world.store, names)
    }


def clock_of(world: World) -> ManualClock:
    assert isinstance(world.clock, ManualClock)
    return world.clock


def decided(world: World, view: SessionView, micro_usd: int, **changes: Any) -> dict[str, Any]:
    return dict(ask(world, view, micro_usd, **changes).result().decision)


@pytest.mark.parametrize(
    ("micro_usd", "changes"),
    [
        (60 * USD, {}),
        (60 * USD + 1, {}),
        (100 * USD + 1, {}),
        (1, {"merchant": "casino"}),
        (1, {"permission": "trade"}),
        (1, {"token_priced": False}),
    ],
    ids=["fits", "too much", "never fits", "merchant", "permission", "price"],
)
def test_it_says_what_is_then_decided(
    world: World, micro_usd: int, changes: dict[str, Any]
) -> None:
    view = world.session(DAY, merchants=("books",))
    world.pay(view, 40)
    found = simulate(world, view, micro_usd, **changes)
    assert found.decision.to_json() == decided(world, view, micro_usd, **changes)


def test_nothing_at_all_is_changed(fresh: World) -> None:
    """An open hold, one that is over and not yet expired, a denial, and a key."""
    clock = clock_of(fresh)
    view = fresh.session(DAY, **WEEK_LONG)
    fresh.pay(view, 30, hold=True)
    clock.advance(TTL_MS - 1)
    fresh.pay(view, 20, hold=True)
    fresh.pay(view, 90, key="denied")
    clock.advance(1)
    before, account = dump(fresh), fresh.engine.ledger.memory.accounts.known[view.id]
    held = dict(account.holds)
    for amount in (1, 80 * USD, 80 * USD + 1, 10**15 - 1):
        simulate(fresh, view, amount)
    assert dump(fresh) == before
    assert account.holds == held
    assert fresh.pay(view, 80, hold=True).state == "held"
    assert fresh.pay(view, 90, key="denied").replayed
    after = dump(fresh)
    assert {name for name in after if after[name] != before[name]} >= {"records", "decisions"}


def test_a_hold_that_is_over_takes_no_budget_though_nobody_has_expired_it(fresh: World) -> None:
    clock = clock_of(fresh)
    view = fresh.session(DAY)
    fresh.pay(view, 70, hold=True)
    fresh.pay(view, 10)
    clock.advance(TTL_MS - 1)
    assert not simulate(fresh, view, 90 * USD).decision.allowed
    clock.advance(1)
    found = simulate(fresh, view, 90 * USD)
    assert (found.decision.allowed, found.limits[0].used) == (True, 10 * USD)
    assert found.decision.to_json() == decided(fresh, view, 90 * USD)


def test_a_hold_that_is_over_takes_none_of_what_conditions_cap(world: World) -> None:
    bounded = policy(
        limits=limits(per_week=50 * USD),
        merchants=None,
        conditions=conditions(
            "at most 2 payments per hour",
            "lifetime at most 25 USD",
            "merchant books.example at most 20 USD per day",
        ),
    )
    account, expected = (
        Account(Stream("w", "s"), "bot", True, "", "", bounded, Standing.ACTIVE, genuine=True)
        for _ in range(2)
    )
    for number, expires_ms in enumerate((NOW_MS, NOW_MS + 1)):
        for each in (account, expected):
            each.decided(
                number,
                NOW_MS - 9 + number,
                request(),
                allowed=True,
                rule="all",
                expires_ms=expires_ms,
            )
    for number in expected.due(NOW_MS):
        expected.spending.windows.advance(NOW_MS)
        expected.ended(number, 0)
    tried = dry_run(account, request(), NOW_MS, 0)
    assert tried == explain(bounded, Standing.ACTIVE, expected.spending, request(), NOW_MS)
    assert [limit.used for limit in tried.limits] == [10 * USD, 1, 10 * USD, 10 * USD]
    assert account.holds.keys() == {0, 1}
    open_still = explain(bounded, Standing.ACTIVE, account.spending, request(), NOW_MS)
    assert [limit.used for limit in open_still.limits] == [20 * USD, 2, 20 * USD, 20 * USD]


def test_a_dry_run_is_no_payment_for_the_next_one(world: World) -> None:
    view = world.session(DAY)
    for _ in range(3):
        assert simulate(world, view, 100 * USD).decision.allowed
    assert world.engine.remaining(view).per_day == 100 * USD


def test_every_rule_and_every_limit_is_told(world: World) -> None:
    view = world.session(Limits(10 * USD, 50 * USD, None, 60 * USD, 5 * USD), merchants=("books",))
    world.pay(view, 5)
    found = simulate(world, view, 58 * USD, merchant="casino")
    against = [verdict.rule.name for verdict in found.verdicts if verdict.finding]
    assert against == ["merchants", "per_transaction", "per_day", "per_month", "approval_above"]
    limits = [(limit.name, limit.used, limit.left) for limit in found.limits]
    assert limits == [("per_day", 5 * USD, 45 * USD), ("per_month", 5 * USD, 55 * USD)]
    assert found.allowed_at_ms is None


@settings(max_examples=60)
@given(
    payments=st.lists(
        st.tuples(st.integers(0, DAY_MS // 2), st.integers(1, 60)), min_size=1, max_size=6
    ),
    amount=st.integers(1, 100),
    wait_ms=st.integers(0, DAY_MS),
    bounds=st.sets(
        st.sampled_from(
            [
                "at most 1 payment per hour",
                "merchant books at most 90 USD per hour",
                "only 09:30-10:00 UTC on Mon Thu",
            ]
        )
    ),
)
def test_allowed_at_is_the_very_millisecond(
    world: World,
    clock: ManualClock,
    payments: list[tuple[int, int]],
    amount: int,
    wait_ms: int,
    bounds: set[str],
) -> None:
    view = world.session(DAY, conditions=tuple(bounds), **WEEK_LONG)
    for gap_ms, dollars in payments:
        clock.advance(gap_ms)
        world.pay(view, dollars)
    clock.advance(wait_ms)
    found = simulate(world, view, amount * USD)
    at_ms = found.allowed_at_ms
    if at_ms is None:
        assert "only" in str(bounds) or ("90 USD" in str(bounds) and amount > 90)
        return
    if at_ms > clock():
        clock.advance(at_ms - clock() - 1)
        assert not decided(world, view, amount * USD)["allowed"]
        clock.advance(1)
    assert decided(world, view, amount * USD)["allowed"]


def test_a_hold_that_nobody_captures_makes_room_when_it_is_over(fresh: World) -> None:
    clock, first_ms = clock_of(fresh), START_MS
    view = fresh.session(
        DAY, agent_id="theirs", conditions=("lifetime at most 120 USD",), **WEEK_LONG
    )
    other = fresh.session(agent_id="theirs", mint_pkp=True)
    above = BudgetLimits(per_day=80 * USD)
    fresh.engine.budgets.set(WORKSPACE, "theirs", above, by="key_1")
    fresh.pay(view, 10, hold=True)
    clock.advance(1_000)
    fresh.pay(other, 30, hold=True)
    signed(fresh, other, offer(fresh, 20 * USD))  # the chain alone ends it
    clock.advance(1_000)
    for amount, at_ms in (
        (20, clock()),
        (30, first_ms + TTL_MS),
        (60, first_ms + 1_000 + TTL_MS),
        (61, first_ms + 1_000 + DAY_MS),
        (81, None),
    ):
        assert simulate(fresh, view, amount * USD).allowed_at_ms == at_ms, amount
    clock.advance(TTL_MS - 2_001)
    assert not simulate(fresh, view, 30 * USD).decision.allowed
    clock.advance(1)  # and nobody has written that it is over
    assert simulate(fresh, view, 30 * USD).allowed_at_ms == clock()
    assert simulate(fresh, view, 60 * USD).allowed_at_ms == clock() + 1_000
    clock.advance(1_000)
    assert decided(fresh, view, 60 * USD)["allowed"]


def test_what_is_over_in_the_account_alone_is_copied_with_what_is_not() -> None:
    in_force = policy(conditions=conditions("lifetime at most 0.000009 USD"))
    account = Account(Stream("w", "s", "agent", None), "bot", False, "", "", in_force)
    account.standing, account.genuine = Standing.ACTIVE, True
    for number, expires_ms in enumerate((NOW_MS, NOW_MS + 5, NOW_MS + 9)):
        account.decided(
            number, NOW_MS - 1, request(amount=3), allowed=True, rule="all", expires_ms=expires_ms
        )
    for amount, at_ms in ((3, NOW_MS), (4, NOW_MS + 5), (7, NOW_MS + 9)):
        assert dry_run(account, request(amount=amount), NOW_MS, 0).allowed_at_ms == at_ms
    assert account.spending.meters.get("sum") is not None
    assert [hold.entry.amount for hold in account.holds.values()] == [3, 3, 3]


def test_allowed_at_is_never_when_the_session_ends_first(fresh: World) -> None:
    for hours, allowed_at_ms in ((23, None), (25, START_MS + DAY_MS)):
        view = fresh.session(DAY, duration_ms=hours * 3_600_000)
        decided_ms = fresh.pay(view, 100).decided_ms
        assert decided_ms == START_MS
        assert simulate(fresh, view, USD).allowed_at_ms == allowed_at_ms


def test_it_refuses_what_a_payment_refuses(world: World) -> None:
    with pytest.raises(NotFound):
        world.engine.ledger.simulate("sess_" + "0" * 26, world.request(1)).result()
    on_chain = world.create(NO_LIMITS, wait_s=0)
    world.engine.chain_watch.lost()
    try:
        with pytest.raises(Unavailable):
            simulate(world, on_chain, 1)
    finally:
        world.engine.tick()


def test_an_ended_session_is_explained_too(world: World) -> None:
    view = world.session(NO_LIMITS)
    world.engine.sessions.revoke(WORKSPACE, view.id, by="operator")
    found = simulate(world, view, 1)
    assert (found.decision.code, found.allowed_at_ms) == ("SESSION_REVOKED", None)
