"""Replay without merchants: everything else is decided again, and little is taken as told."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from engine.audit.canonical import CanonicalError, encode
from engine.audit.disclosure import GROUPS, split
from engine.audit.record import Record, committed_form, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.clock import ManualClock
from engine.grant import Grant
from engine.policy.limits import DAY_MS, Limits
from engine.sessions.session import SessionView
from tests.audit.test_replay import changed_facts, sentences, steps, take
from tests.audit.test_replay import limits as any_limits
from tests.evidence.story import Document, chained, read, story
from tests.world import USD, World, records_of

LISTED = (
    "merchant books at most 15 USD per transaction",
    "merchant books at most 40 USD per week",
    "never merchant casino",
)
START_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("blind") / "data", ManualClock(START_MS))
    yield made
    made.engine.close()


def withheld(raws: list[bytes]) -> list[Record]:
    """Records without their merchants."""
    return [decode_record(*committed_form(raw, ("merchant",))) for raw in raws]


def blind(view: SessionView) -> Replay:
    return Replay(view.grant, view.grant_hash, withheld=("merchant",))


@settings(max_examples=60)
@given(limits=any_limits, conditions=sentences, steps=steps)
def test_whatever_the_ledger_decided_replays_without_merchants(
    world: World, limits: Limits, conditions: tuple[str, ...], steps: list[tuple[Any, ...]]
) -> None:
    view = world.session(
        limits, merchants=("books",), conditions=conditions, duration_ms=7 * DAY_MS
    )
    for step in steps:
        take(world, view, step)
    records = records_of(world, view)
    seen, unseen = Replay(view.grant, view.grant_hash), blind(view)
    seen.feed(records)
    unseen.feed(withheld([record.raw for record in records]))
    for name in ("decisions", "allowed_ms", "captured_micro_usd", "open_until_ms", "state"):
        assert getattr(unseen, name) == getattr(seen, name)
    rules = [
        record.body["decision"]["rule"] for record in records if record.kind == "payment.decided"
    ]
    certain = sum(rule in ("merchants", "never_merchant", "merchant_cap") for rule in rules)
    assert certain <= unseen.taken_as_told <= certain + rules.count("per_transaction")


class Told:
    """Sessions whose decisions are to be changed before they are replayed without merchants."""

    def __init__(self, world: World, conditions: tuple[str, ...] = LISTED, **grant: Any) -> None:
        self.world = world
        self.view = world.session(
            Limits(20 * USD, 100 * USD, None, None, None), conditions=conditions, **grant
        )

    def pay(self, dollars: int, **how: Any) -> Document:
        """The decision on a payment."""
        return dict(self.world.pay(self.view, dollars, **how).decision)

    def check(self, change: Callable[[Document], object] = dict) -> int:
        """Replay with another last decision; how many are taken as told."""
        raws = [record.raw for record in records_of(self.world, self.view)]
        bodies = [json.loads(raw) for raw in raws]
        last = [body for body in bodies if body["kind"] == "payment.decided"][-1]
        change(last["body"])
        replay = blind(self.view)
        replay.feed(withheld(chained(bodies)))
        return replay.taken_as_told


def denied(code: str, rule: str) -> Callable[[Document], None]:
    """The decision is a denial by this rule, so nothing is taken from what is left."""

    def change(body: Document) -> None:
        if body["decision"]["allowed"]:
            body["decision"]["remaining"]["per_day"] += body["request"]["amount_micro_usd"]
        body["decision"] |= {"allowed": False, "code": code, "rule": rule}
        body["hold_expires_ms"] = None

    return change


def test_each_denial_by_a_rule_on_merchants_is_taken_as_told(world: World) -> None:
    told = Told(world, merchants=("books", "casino"))
    for merchant, dollars, rule in [
        ("data", 1, "merchants"),
        ("casino", 1, "never_merchant"),
        ("books", 16, "per_transaction"),
    ]:
        assert told.pay(dollars, merchant=merchant)["rule"] == rule
    assert told.check() == 3
    for _ in range(3):
        told.pay(12, merchant="books")
    assert told.pay(12, merchant="books")["rule"] == "merchant_cap"
    assert told.check() == 4


def test_a_denial_by_a_rule_that_the_policy_does_not_have_is_not(world: World) -> None:
    told = Told(world, conditions=())
    told.pay(1, merchant="books", hold=True)
    for rule, code in [
        ("merchants", "MERCHANT_NOT_ALLOWED"),
        ("never_merchant", "MERCHANT_NOT_ALLOWED"),
        ("merchant_cap", "LIMIT_EXCEEDED"),
        ("per_transaction", "LIMIT_EXCEEDED"),
        ("per_day", "LIMIT_EXCEEDED"),
        ("chains", "CHAIN_NOT_ALLOWED"),
    ]:
        with pytest.raises(ReplayError, match="without its rules on merchants decides ALLOWED"):
            told.check(denied(code, rule))
    told.check()


def test_a_cap_on_payments_to_a_merchant_denies_none_below_it(world: World) -> None:
    told = Told(world)
    told.pay(15, merchant="books", hold=True)
    with pytest.raises(ReplayError):
        told.check(denied("LIMIT_EXCEEDED", "per_transaction"))
    told = Told(world)
    told.pay(16, merchant="data", hold=True)
    assert told.check(denied("LIMIT_EXCEEDED", "per_transaction")) == 1


def test_an_earlier_rule_cannot_be_passed_over(world: World) -> None:
    """A payment that another rule denies first is not denied by one on merchants."""
    told = Told(world)
    assert told.pay(1, merchant="casino", token_priced=False)["rule"] == "token_price"
    with pytest.raises(ReplayError, match=r"decides TOKEN_NOT_ALLOWED \(token_price\)"):
        told.check(denied("MERCHANT_NOT_ALLOWED", "never_merchant"))
    told = Told(world)
    assert told.pay(25, merchant="data")["rule"] == "per_transaction"
    assert told.check(denied("MERCHANT_NOT_ALLOWED", "never_merchant")) == 1
    with pytest.raises(ReplayError):
        told.check(denied("LIMIT_EXCEEDED", "merchant_cap"))
    with pytest.raises(ReplayError):
        told.check(denied("LIMIT_EXCEEDED", "agent_budget"))


def test_what_a_rule_that_is_known_denies_cannot_be_allowed(world: World) -> None:
    told = Told(world)
    told.pay(25, merchant="data")

    def allow(body: Document) -> None:
        body["decision"] |= {"allowed": True, "code": "ALLOWED", "rule": "all"}
        body["hold_expires_ms"] = body["chain_time_ms"] + START_MS + 900_000

    with pytest.raises(ReplayError, match="decides LIMIT_EXCEEDED"):
        told.check(allow)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda decision: decision.update(code="LIMIT_EXCEEDED"), r"decision\.code is"),
        (
            lambda decision: decision["remaining"].update(per_day=1),
            r"decision\.remaining\.per_day is",
        ),
        (
            lambda decision: decision.update(allowed=0),
            r"decision\.allowed is false, the record says 0",
        ),
        (lambda decision: decision.update(rule=["never_merchant"]), "not of its type"),
        (lambda decision: decision.pop("rule"), "rule"),
        (lambda decision: decision.update(note="x"), r"decision\.note is not to be"),
    ],
)
def test_a_denial_that_is_taken_as_told_has_all_else_as_it_must_be(
    world: World, change: Callable[[Document], object], why: str
) -> None:
    told = Told(world)
    assert told.pay(5, merchant="casino")["rule"] == "never_merchant"
    assert told.check() == 1
    with pytest.raises(ReplayError, match=why):
        told.check(lambda body: change(body["decision"]))


def test_no_fact_that_is_shown_of_any_decision_can_be_another() -> None:
    document = read(story().full)
    grant = Grant.from_json(document["session"]["grant"])
    bodies = [json.loads(entry["record"]) for entry in document["records"]]

    def replays(changed: list[Document]) -> bool:
        replay = Replay(grant, grant.hash(), withheld=("merchant",))
        try:
            replay.feed(withheld(chained(changed)))
        except (CanonicalError, ReplayError):
            return False
        return True

    group = GROUPS["payment.decided"]["merchant"]
    tried, accepted = changed_facts(bodies, replays, lambda body: split(body, group)[0])
    assert accepted == []
    assert tried > 300


def test_a_record_that_tells_its_merchant_does_not_replay_among_those_that_do_not(
    world: World,
) -> None:
    told = Told(world)
    told.pay(5, merchant="books")
    records = records_of(world, told.view)
    with pytest.raises(ReplayError):
        blind(told.view).feed(records)
    with pytest.raises(ReplayError):
        Replay(told.view.grant, told.view.grant_hash).feed(
            withheld([record.raw for record in records])
        )
    assert encode(records[0].body) == encode(withheld([records[0].raw])[0].body)
