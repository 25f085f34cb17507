"""A draft against a real log: an oracle that reads plain JSON must find the same differences."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.audit.backtest import Backtest, Difference, Draft, Outcome, Total, backtest
from engine.audit.record import Record
from engine.audit.replay import ReplayError
from engine.clock import ManualClock
from engine.policy.conditions import parse_conditions
from engine.policy.decision import Policy
from engine.policy.limits import DAY_MS, Limits
from engine.sessions.session import SessionView
from tests.audit.test_replay import limits, sentences, steps, take
from tests.ledger.approving import asked_for, first_key, grant
from tests.policy.conditions_oracle import PRECEDENCE, Paid, Terms
from tests.world import NO_LIMITS, USD, WORKSPACE, World, records_of

START_MS = 1_800_000_000_000
ORDER = [
    *("revoked", "valid_until", "valid_from", "active_hours", "permissions", "never_chain"),
    *("never_token", "token_price", "merchants"),
    *PRECEDENCE[PRECEDENCE.index("never_merchant") :],
]
CODES = {
    "all": "ALLOWED",
    "revoked": "SESSION_REVOKED",
    "valid_until": "SESSION_EXPIRED",
    "active_hours": "OUTSIDE_ACTIVE_HOURS",
    "permissions": "PERMISSION_NOT_ALLOWED",
    "never_chain": "CHAIN_NOT_ALLOWED",
    "token_price": "TOKEN_NOT_ALLOWED",
    "merchants": "MERCHANT_NOT_ALLOWED",
    "never_merchant": "MERCHANT_NOT_ALLOWED",
    "approval_above": "APPROVAL_REQUIRED",
}


@pytest.fixture(scope="module")
def slow_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation whose clock only moves when it is told to."""
    world = World(tmp_path_factory.mktemp("backtest") / "data", ManualClock(START_MS))
    yield world
    world.engine.close()


@dataclass
class Oracle:
    """Sums over all of history at every payment; knows the engine's records and nothing of it."""

    terms: Terms
    merchants: list[str]
    restricted: bool
    """Whether the draft has restrictions of its own."""
    history: list[Paid] = field(default_factory=list)
    shared: dict[str, Paid] = field(default_factory=dict)
    differences: list[tuple[str, int, str, str]] = field(default_factory=list)
    allowed: int = 0

    def read(self, raws: list[bytes]) -> None:
        for record in map(json.loads, raws):
            body = record["body"]
            if record["kind"] == "session.restricted" and not self.restricted:
                self.terms.restrictions = body["restrictions"]
            elif record["kind"] == "payment.decided":
                self.decide(record["time_ms"], body)
            elif record["kind"].startswith("payment.") and body["payment"] in self.shared:
                self.shared[body["payment"]].amount = body["captured_micro_usd"]

    def decide(self, now_ms: int, body: dict[str, Any]) -> None:
        request, decision = body["request"], body["decision"]
        asked = Paid(now_ms, request["amount_micro_usd"], request["merchant"], request["token"])
        broken = self.terms.broken(self.history, asked, now_ms)
        broken |= {"revoked"} if body["standing"] == "revoked" else set()
        broken |= {"permissions"} if request["permission"] != "pay" else set()
        broken |= set() if request["token_priced"] else {"token_price"}
        broken |= set() if request["merchant"] in self.merchants else {"merchants"}
        rule = min(broken, key=ORDER.index, default="all")
        if rule != decision["rule"]:
            self.differences.append((body["payment"], asked.amount, decision["rule"], rule))
        if rule == "all":
            self.allowed += 1
            self.history.append(asked)
            if decision["allowed"]:
                self.shared[body["payment"]] = asked


def under(world: World, view: SessionView, **changes: Any) -> Backtest:
    """The session's log under its own policy with these changes."""
    return backtest(records_of(world, view), view.grant, changing(**changes))


def changing(**changes: Any) -> Draft:
    def draft(policy: Policy) -> Policy:
        return replace(policy, **changes)

    return draft


limit_edits = st.tuples(
    st.sampled_from(["per_transaction", "per_day", "per_week", "per_month", "approval_above"]),
    st.none() | st.integers(0, 40).map(lambda dollars: dollars * USD),
)
edits = st.one_of(
    limit_edits,
    limit_edits,
    st.tuples(st.sampled_from(["conditions", "restrictions"]), sentences),
    st.just(("merchants", ("books", "casino"))),
)


@settings(max_examples=75)
@given(limits=limits, conditions=sentences, steps=steps, edit=edits)
def test_the_differences_are_those_of_an_oracle(
    slow_world: World,
    limits: Limits,
    conditions: tuple[str, ...],
    steps: list[tuple[Any, ...]],
    edit: tuple[str, Any],
) -> None:
    view = slow_world.session(
        limits, merchants=("books",), conditions=conditions, duration_ms=7 * DAY_MS
    )
    for step in steps:
        take(slow_world, view, step)
    records = records_of(slow_world, view)
    what, value = edit
    drafted: dict[str, Any] = {"limits": limits, "conditions": conditions, "merchants": ("books",)}
    if what in asdict(limits):
        drafted["limits"] = changed = replace(limits, **{what: value})
        changes: dict[str, Any] = {"limits": changed}
    elif what == "merchants":
        drafted["merchants"], changes = value, {"merchants": frozenset(value)}
    else:
        drafted[what], changes = value, {what: parse_conditions(sorted(value))}
    oracle = Oracle(
        Terms(
            list(drafted["conditions"]),
            list(drafted.get("restrictions", ())),
            asdict(drafted["limits"]),
            (view.grant.valid_from_s * 1000, view.grant.valid_until_s * 1000),
        ),
        list(drafted["merchants"]),
        what == "restrictions",
    )
    oracle.read([record.raw for record in records])

    found = backtest(records, view.grant, changing(**changes))

    assert [
        (each.payment, each.amount, each.recorded.rule, each.drafted.rule)
        for each in found.differences
    ] == oracle.differences
    for each in found.differences:
        for outcome in (each.recorded, each.drafted):
            assert outcome.code == CODES.get(outcome.rule, "LIMIT_EXCEEDED")
    left = sum(paid.amount for paid in oracle.history)
    assert (found.drafted.allowed, found.drafted.micro_usd) == (oracle.allowed, left)
    payments, total = slow_world.engine.payments.page(
        WORKSPACE, session_id=view.id, offset=0, limit=100
    )
    assert found.decisions == total == len(payments)
    real = [payment for payment in payments if payment.state != "denied"]
    held = sum(payment.amount for payment in real if payment.state == "held")
    assert found.recorded == Total(len(real), held + sum(payment.captured for payment in real))
    event(f"differs: {bool(found.differences)}")


@settings(max_examples=40)
@given(limits=limits, conditions=sentences, steps=steps)
def test_the_policy_that_was_in_force_differs_nowhere(
    slow_world: World,
    limits: Limits,
    conditions: tuple[str, ...],
    steps: list[tuple[Any, ...]],
) -> None:
    view = slow_world.session(
        limits, merchants=("books",), conditions=conditions, duration_ms=7 * DAY_MS
    )
    for step in steps:
        take(slow_world, view, step)
    found = under(slow_world, view)
    assert found.differences == ()
    assert found.drafted == found.recorded


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn."""
    opened = World(tmp_path / "data", ManualClock(START_MS))
    yield opened
    opened.engine.close()


def day(dollars: int) -> Limits:
    return Limits(None, dollars * USD, None, None, None)


ALLOWED = Outcome("ALLOWED", "all")
OVER = Outcome("LIMIT_EXCEEDED", "per_day")


def test_a_capture_of_what_the_draft_denies_counts_for_nothing(timed: World) -> None:
    view = timed.session(day(100))
    first = timed.pay(view, 40, hold=True)
    denied = timed.pay(view, 30, hold=True)
    timed.engine.ledger.capture(WORKSPACE, denied.id, 25 * USD).result()
    small = timed.pay(view, 10)
    found = under(timed, view, limits=day(50))
    assert found == Backtest(
        3,
        (Difference(denied.id, START_MS, 30 * USD, ALLOWED, OVER),),
        Total(3, 75 * USD),
        Total(2, 50 * USD),
        budgets_above_unknown=False,
    )
    timed.engine.ledger.void(WORKSPACE, first.id).result()
    after = timed.pay(view, 40)
    assert (small.state, after.state) == ("captured", "captured")
    assert under(timed, view, limits=day(50)).drafted == Total(3, 50 * USD)


def test_what_only_the_draft_allows_counts_in_full_and_for_good(timed: World) -> None:
    view = timed.session(day(50))
    held = timed.pay(view, 40, hold=True)
    more = timed.pay(view, 30)
    timed.engine.ledger.void(WORKSPACE, held.id).result()
    last = timed.pay(view, 50)
    assert (more.state, last.state) == ("denied", "captured")
    found = under(timed, view, limits=day(75))
    assert found == Backtest(
        3,
        (
            Difference(more.id, START_MS, 30 * USD, OVER, ALLOWED),
            Difference(last.id, START_MS, 50 * USD, ALLOWED, OVER),
        ),
        Total(2, 50 * USD),
        Total(2, 30 * USD),
        budgets_above_unknown=True,
    )


@pytest.mark.parametrize("twice", [False, True], ids=["asked once", "asked twice"])
def test_what_an_approval_let_pass_is_the_payment_that_the_draft_allowed(
    timed: World, twice: bool
) -> None:
    view = timed.session(replace(day(100), approval_above=50 * USD))
    waiting = asked_for(timed, view, 60, hold=True)
    if twice:
        assert asked_for(timed, view, 60, hold=True).id == waiting.id
    made = grant(timed, waiting, first_key(timed)).payment_id
    assert made is not None
    timed.engine.ledger.capture(WORKSPACE, made, 55 * USD).result()
    assert timed.pay(view, 45).state == "captured"
    waited = Outcome("APPROVAL_REQUIRED", "approval_above")
    denied = [
        each
        for each in timed.engine.payments.page(WORKSPACE, session_id=view.id, offset=0, limit=9)[0]
        if each.state == "denied"
    ]
    found = under(timed, view, limits=day(100))
    assert found.recorded == Total(2, 100 * USD)
    first = Difference(denied[-1].id, START_MS, 60 * USD, waited, ALLOWED)
    # Nobody asks again for what was paid at once: however often, it is one payment.
    assert found.differences == (first,)
    assert found.drafted == Total(2, 100 * USD)


def test_what_waits_is_one_payment_that_a_looser_draft_allows_until_it_is_over(
    timed: World,
) -> None:
    view = timed.session(replace(day(1000), approval_above=10 * USD))
    for _ in range(4):
        waiting = asked_for(timed, view, 50)
    grant(timed, waiting, first_key(timed))
    assert under(timed, view, limits=day(1000)).drafted == Total(1, 50 * USD)
    assert asked_for(timed, view, 50).id != waiting.id
    found = under(timed, view, limits=day(1000))
    assert (found.drafted, len(found.differences)) == (Total(2, 100 * USD), 2)


def test_what_the_draft_denied_waited_for_no_approval_that_could_be_granted(timed: World) -> None:
    view = timed.session(replace(day(200), approval_above=30 * USD))
    held = timed.pay(view, 20, hold=True)
    waiting = asked_for(timed, view, 60)
    timed.engine.ledger.void(WORKSPACE, held.id).result()
    assert grant(timed, waiting, first_key(timed)).state == "granted"
    limits = replace(day(60), approval_above=30 * USD)
    found = under(timed, view, limits=limits)
    assert [each.drafted for each in found.differences] == [OVER]
    assert (found.recorded, found.drafted) == (Total(2, 60 * USD), Total(1, 0))
    asked_for(timed, view, 60)
    asked_again = asked_for(timed, view, 60)  # by then the draft has it wait as well
    assert grant(timed, asked_again, first_key(timed)).state == "granted"
    assert under(timed, view, limits=limits).drafted == Total(2, 60 * USD)


def test_it_is_told_whether_budgets_above_could_deny_what_only_the_draft_allows(
    timed: World,
) -> None:
    view = timed.session(day(50))
    timed.pay(view, 40)
    timed.pay(view, 20)
    assert under(timed, view, limits=day(75)).budgets_above_unknown
    for dollars in (50, 10):
        assert not under(timed, view, limits=day(dollars)).budgets_above_unknown


def test_another_reason_is_a_difference_and_other_numbers_are_not(timed: World) -> None:
    view = timed.session(day(50), merchants=("books",))
    timed.pay(view, 60)
    timed.pay(view, 1, merchant="casino")
    assert under(timed, view, limits=day(40)).differences == ()
    found = under(timed, view, merchants=frozenset({"shoes"}))
    outcomes = [(each.recorded.rule, each.drafted.rule) for each in found.differences]
    assert outcomes == [("per_day", "merchants")]
    assert found.recorded == found.drafted == Total(0, 0)


def test_a_log_that_does_not_replay_tells_nothing(timed: World) -> None:
    view, other = timed.session(NO_LIMITS), timed.session(NO_LIMITS)
    timed.pay(view, 1)
    timed.pay(view, 2)
    records: list[Record] = records_of(timed, view)
    with pytest.raises(ReplayError):
        backtest([*records[:1], *records[3:]], view.grant, changing())
    with pytest.raises(ReplayError, match="another grant"):
        backtest(records, other.grant, changing())
