"""Replay agrees with the real ledger about everything it did, and with nothing else."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audit import canonical
from engine.audit.canonical import CanonicalError
from engine.audit.record import decode_record
from engine.audit.replay import HOLD_TTL_MAX_MS, Replay, ReplayError
from engine.clock import ManualClock
from engine.errors import Conflict, TallystickError
from engine.grant import Grant
from engine.policy.budgets import BudgetLimits
from engine.policy.decide import left as left_of
from engine.policy.limits import DAY_MS, Limits
from engine.policy.money import format_usd
from engine.sessions.session import SessionView
from tests.evidence.story import Document, chained, read, story
from tests.world import USD, WORKSPACE, World, records_of

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def slow_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation whose clock only moves when it is told to."""
    world = World(tmp_path_factory.mktemp("replay") / "data", ManualClock(1_800_000_000_000))
    yield world
    world.engine.close()


limit = st.none() | st.integers(20, 90).map(lambda dollars: dollars * USD)
limits = st.builds(Limits, limit, limit, limit, limit, limit)
pay = st.tuples(
    st.just("pay"), st.builds(dict, dollars=st.integers(1, 30), hold=st.sampled_from([True, False]))
)
refused = st.sampled_from(
    [{"merchant": "casino"}, {"permission": "trade"}, {"token_priced": False}]
)
ends = st.tuples(
    st.sampled_from(["capture", "capture", "void"]), st.integers(0, 3), st.integers(1, 30 * USD)
)
waits = st.sampled_from([1, MINUTE_MS, 14 * MINUTE_MS, 15 * MINUTE_MS, DAY_MS, 6 * DAY_MS])
few = st.tuples(st.just("pay"), refused) | st.just(("revoke",))
sentences = st.lists(
    st.sampled_from(
        [
            "at most 2 payments per hour",
            "at most 4 payments per day",
            "at most 9 payments per lifetime",
            "lifetime at most 60 USD",
            "merchant books at most 15 USD per transaction",
            "merchant books at most 40 USD per week",
            "never chain eip155:56",
            "only 00:00-09:00 UTC on Mon Tue Wed Thu Fri",
        ]
    ),
    unique=True,
    max_size=3,
).map(tuple)
restrict = st.tuples(st.just("restrict"), sentences)
steps = st.lists(
    st.sampled_from(
        [pay] * 5 + [ends] * 4 + [st.tuples(st.just("wait"), waits)] * 3 + [few, restrict]
    ).flatmap(lambda kind: kind),
    min_size=6,
    max_size=24,
)


def take(world: World, view: SessionView, step: tuple[Any, ...]) -> None:
    """Ask the ledger for one step; that it may refuse is part of the test."""
    name, *arguments = step
    ledger, clock = world.engine.ledger, world.clock
    assert isinstance(clock, ManualClock)
    if name == "pay":
        world.pay(view, **{"dollars": 1, **arguments[0]})
    elif name == "wait":
        clock.advance(arguments[0])
    elif name == "restrict":
        with contextlib.suppress(Conflict):
            world.engine.sessions.restrict(WORKSPACE, view.id, arguments[0], by="operator")
    elif name == "revoke":
        world.engine.sessions.revoke(WORKSPACE, view.id, by="operator")
    else:
        back, amount = arguments
        payments, _ = world.engine.payments.page(
            WORKSPACE, session_id=view.id, offset=back, limit=1
        )
        for payment in payments:
            try:
                if name == "void":
                    ledger.void(WORKSPACE, payment.id).result()
                else:
                    ledger.capture(WORKSPACE, payment.id, amount).result()
            except TallystickError:
                return


@settings(max_examples=80)
@given(limits=limits, conditions=sentences, steps=steps)
def test_every_decision_of_the_ledger_comes_out_the_same(
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
    left = slow_world.engine.ledger.left(view.id).result()
    records = records_of(slow_world, view)
    replay = Replay(view.grant, view.grant_hash)
    replay.feed(records)

    payments, _ = slow_world.engine.payments.page(
        WORKSPACE, session_id=view.id, offset=0, limit=100
    )
    assert replay.decisions == len(payments) == sum(step[0] == "pay" for step in steps)
    assert len(replay.allowed_ms) == sum(payment.decision["allowed"] for payment in payments)
    assert replay.captured_micro_usd == sum(payment.captured for payment in payments)
    held = [payment.expires_ms for payment in payments if payment.state == "held"]
    assert replay.open_until_ms == min(held, default=None)
    assert replay.state == slow_world.engine.sessions.get(WORKSPACE, view.id).state
    now = slow_world.engine.sessions.get(WORKSPACE, view.id)
    policy = view.grant.policy(now.restrictions)
    assert replay.policy_version == now.policy_version
    told = left_of(policy, replay.usage.spending, slow_world.clock())
    assert (left.remaining, left.caps) == (told.remaining, told.caps)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from leaves(value[name], (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def others(value: Any) -> list[Any]:
    """Values that are not this one, the one that Python calls equal among them."""
    found: list[Any] = [None, [], {}, "", 2**53 - 1, -1]
    if isinstance(value, bool):
        found += [not value, int(value)]
    elif isinstance(value, int):
        found += [value + 1, value - 1, str(value), bool(value)]
    elif isinstance(value, str):
        found += [value + " ", value.upper(), value[:-1]]
    kept = []
    for other in found:
        if canonical.encode([other]) not in {canonical.encode([each]) for each in (value, *kept)}:
            kept.append(other)
    return kept


def changed_facts(
    bodies: list[Document],
    replays: Callable[[list[Document]], bool],
    shown: Callable[[Document], Document],
) -> tuple[int, list[Any]]:
    """Change each fact that is shown of each decision: how many changes, and those that replay."""
    assert replays(bodies)
    tried, accepted = 0, []
    for place, record in enumerate(bodies):
        if record["kind"] != "payment.decided":
            continue
        for path in leaves(shown(record["body"])["decision"], ("body", "decision")):
            for other in others(at(record, path)):
                changed = canonical.decode_object(canonical.encode(record))
                at(changed, path[:-1])[path[-1]] = other
                tried += 1
                if replays([*bodies[:place], changed, *bodies[place + 1 :]]):
                    accepted.append((place, path, other))
    return tried, accepted


def test_no_fact_of_any_decision_can_be_another() -> None:
    document = read(story().full)
    grant = Grant.from_json(document["session"]["grant"])
    bodies = [canonical.decode_object(entry["record"].encode()) for entry in document["records"]]

    def replays(changed: list[Document]) -> bool:
        try:
            Replay(grant, grant.hash()).feed([decode_record(raw) for raw in chained(changed)])
        except (CanonicalError, ReplayError):
            return False
        return True

    tried, accepted = changed_facts(bodies, replays, lambda body: body)
    assert accepted == []
    assert tried > 500


def retold(world: World, view: SessionView, change: Callable[[list[Document]], object]) -> None:
    """Replay a session's records as somebody would have logged them instead."""
    bodies = [canonical.decode_object(record.raw) for record in records_of(world, view)]
    change(bodies)
    Replay(view.grant, view.grant_hash).feed([decode_record(raw) for raw in chained(bodies)])


def test_no_budget_denies_a_payment_that_fits_exactly(slow_world: World) -> None:
    view = slow_world.session(agent_id="thrifty")
    slow_world.engine.budgets.set(WORKSPACE, "thrifty", BudgetLimits(per_day=50 * USD), by="test")
    slow_world.pay(view, 45)
    assert slow_world.pay(view, 6).decision["rule"] == "agent_budget"

    def used(amount: int) -> Callable[[list[Document]], None]:
        def change(bodies: list[Document]) -> None:
            decision = bodies[-1]["body"]["decision"]
            told = decision["evidence"]["used"]
            decision["evidence"]["used"] = amount
            decision["reason"] = decision["reason"].replace(format_usd(told), format_usd(amount))

        return change

    retold(slow_world, view, used(44 * USD + 1))
    with pytest.raises(ReplayError, match="the payment fits into budget"):
        retold(slow_world, view, used(44 * USD))


def test_no_hold_is_of_a_millisecond_more_than_a_hold_can_be(slow_world: World) -> None:
    view = slow_world.session()
    slow_world.pay(view, 5, hold=True)

    def held(ttl_ms: int) -> Callable[[list[Document]], None]:
        return lambda bodies: bodies[-1]["body"].update(
            hold_expires_ms=bodies[-1]["time_ms"] + ttl_ms
        )

    retold(slow_world, view, held(HOLD_TTL_MAX_MS))
    with pytest.raises(ReplayError, match="the life of its hold"):
        retold(slow_world, view, held(HOLD_TTL_MAX_MS + 1))


def test_no_version_of_the_policy_is_passed_over(slow_world: World) -> None:
    view = slow_world.session()
    for name in ("casino", "bar"):
        slow_world.engine.sessions.restrict(
            WORKSPACE, view.id, (f"never merchant {name}",), by="operator"
        )

    def numbered(version: int) -> Callable[[list[Document]], None]:
        return lambda bodies: bodies[-1]["body"].update(policy_version=version)

    retold(slow_world, view, numbered(3))
    for version in (2, 4):
        with pytest.raises(ReplayError, match=f"version {version} of the policy follows 2"):
            retold(slow_world, view, numbered(version))


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_a_record_holds_replay_answers(data: st.DataObject) -> None:
    """Anything but an answer, or a refusal, would be a way to stop an auditor."""
    document = read(story().full)
    grant = Grant.from_json(document["session"]["grant"])
    bodies = [canonical.decode_object(entry["record"].encode()) for entry in document["records"]]
    record = data.draw(st.sampled_from(bodies))
    path = data.draw(st.sampled_from([p for p in leaves(record["body"], ("body",)) if p[1:]]))
    at(record, path[:-1])[path[-1]] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text("ab\x00é"),
            lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
            max_leaves=5,
        )
    )
    try:
        Replay(grant, grant.hash()).feed([decode_record(raw) for raw in chained(bodies)])
    except (CanonicalError, ReplayError):
        return


def test_it_does_not_rest_on_assertions(tmp_path: Path) -> None:
    """A negative amount would be budget; Python run with -O has no `assert` to refuse it."""
    file, _ = story().relogged(
        lambda records: records[3]["body"]["request"].update(amount_micro_usd=-1)
    )
    (tmp_path / "file").write_bytes(file)
    program = (
        "import sys; from engine.audit.evidence import parse_evidence\n"
        "from engine.audit.record import decode_record; from engine.audit.replay import *\n"
        "file = parse_evidence(open(sys.argv[1], 'rb').read())\n"
        "replay = Replay(file.grant, file.grant.hash())\n"
        "try: replay.feed([decode_record(entry.raw) for entry in file.records])\n"
        "except ReplayError as error: print(__debug__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", program, tmp_path / "file"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout == "False record 3 (payment.decided): the amount is not one that can be paid\n"
    )
