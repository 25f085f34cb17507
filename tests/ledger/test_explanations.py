"""A recorded decision explained from the records alone, and a draft tried on them."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from engine.audit.canonical import decode_object, encode
from engine.audit.record import decode_record
from engine.audit.replay import Replay, ReplayError
from engine.errors import NotFound, Unavailable
from engine.ledger.payment import Payment
from engine.policy.explain import Explanation
from engine.policy.limits import DAY_MS, Limits
from engine.sessions.session import SessionView
from tests.audit.test_replay import limits, sentences, steps, take
from tests.ledger.oracle import alter, query
from tests.world import NO_LIMITS, USD, WORKSPACE, World, records_of

DAY = Limits(None, 100 * USD, None, None, None)


def explain(world: World, payment: Payment) -> Any:
    return world.engine.explanations.explain(payment)


@settings(max_examples=30)
@given(limits=limits, conditions=sentences, steps=steps)
def test_a_decision_is_explained_as_it_would_have_been_just_before(
    world: World,
    limits: Limits,
    conditions: tuple[str, ...],
    steps: list[tuple[Any, ...]],
) -> None:
    """The dry run made at that time and the replay made afterwards agree about everything, but for
    what an open hold gives back when it expires: the dry run alone knows of that."""
    view = world.session(
        limits, merchants=("books",), conditions=conditions, duration_ms=7 * DAY_MS
    )
    tried: list[Explanation] = []
    for step in steps:
        if step[0] == "pay":
            asked = {"dollars": 1, **step[1]}
            asked.pop("hold", None)
            request = world.request(asked.pop("dollars"), **asked)
            tried.append(world.engine.ledger.simulate(view.id, request).result())
        take(world, view, step)
    payments, _ = world.engine.payments.page(WORKSPACE, session_id=view.id, offset=0, limit=100)
    assert len(payments) == len(tried)
    for payment, before in zip(reversed(payments), tried, strict=True):
        explained = explain(world, payment)
        assert (explained.recorded, explained.differs) == (payment.decision, None)
        later_ms = explained.found.allowed_at_ms
        assert replace(explained.found, allowed_at_ms=before.allowed_at_ms) == before
        if later_ms != before.allowed_at_ms:
            assert any(step[0] == "pay" and step[1].get("hold") for step in steps)
            assert before.allowed_at_ms is not None
            assert later_ms is None or before.allowed_at_ms < later_ms


def test_later_payments_do_not_matter(world: World) -> None:
    view = world.session(DAY)
    first = world.pay(view, 60)
    before = explain(world, first)
    world.pay(view, 40)
    world.engine.sessions.revoke(WORKSPACE, view.id, by="operator")
    assert explain(world, first) == before
    assert [limit.used for limit in before.found.limits] == [0]


def change_record(world: World, seq: int, view: SessionView, change: Callable[[Any], None]) -> None:
    """Change a record as somebody would who can write to the database."""
    where = "FROM records WHERE stream = ? AND seq = ?"
    [(body,)] = query(world.store, f"SELECT body {where}", view.id, seq)
    record = decode_object(bytes(body))
    change(record["body"])
    update = "UPDATE records SET body = ? WHERE stream = ? AND seq = ?"
    assert alter(world.store, update, encode(record), view.id, seq) == 1


CHANGES: dict[str, Callable[[Any], None]] = {
    "the code": lambda body: body["decision"].update(code="ALLOWED"),
    "allowed after all": lambda body: body["decision"].update(allowed=True),
    "a fact": lambda body: body["decision"]["evidence"].update(used=59 * USD),
    "what was left": lambda body: body["decision"]["remaining"].update(per_day=1),
    "1 for true": lambda body: body["decision"].update(allowed=0),
    "one word": lambda body: body["decision"].update(reason="No."),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_decision_that_does_not_follow_is_told_beside_what_follows(
    world: World, change: Callable[[Any], None]
) -> None:
    view = world.session(DAY)
    world.pay(view, 60)
    denied = world.pay(view, 60)
    change_record(world, denied.number, view, change)
    payment = world.engine.payments.get(WORKSPACE, denied.id)
    explained = explain(world, payment)
    assert explained.recorded == payment.decision
    assert encode(explained.recorded) != encode(denied.decision)
    assert explained.found.decision.to_json() == denied.decision
    assert explained.differs.startswith(
        f"record {denied.number} (payment.decided): the policy decides LIMIT"
    )


def test_records_that_do_not_lead_to_the_payment_are_told(world: World) -> None:
    view = world.session(DAY)
    world.pay(view, 60)
    denied = world.pay(view, 60)
    change_record(world, 1, view, lambda body: body["request"].update(amount_micro_usd=1))
    explained = explain(world, denied)
    assert (explained.recorded, explained.found) == (denied.decision, None)
    assert explained.differs.startswith("record 1 (payment.decided): ")
    with pytest.raises(Unavailable) as damaged:
        world.engine.explanations.backtest(WORKSPACE, view.id, lambda policy: policy)
    assert damaged.value.code == "session_damaged"
    absent = msgspec.structs.replace(denied, number=9)
    fine = world.session(DAY)
    assert explain(world, msgspec.structs.replace(absent, stream=fine.stream)).differs == (
        "no record tells of the payment"
    )


def test_another_workspace_has_no_such_session(world: World) -> None:
    view = world.session(NO_LIMITS)
    with pytest.raises(NotFound):
        world.engine.explanations.backtest("other", view.id, lambda policy: policy)


def test_a_denial_by_a_budget_is_told_as_the_operator_says(world: World) -> None:
    """No record tells what a budget holds, so what else stands against the payment is told too."""
    view = world.session(Limits(None, 100 * USD, None, None, 5 * USD))
    world.pay(view, 5)
    world.pay(view, 200)
    *before, record = records_of(world, view)
    told = json.loads(record.raw)
    told["body"]["request"]["amount_micro_usd"] = 20 * USD
    told["body"]["decision"] = {
        "allowed": False,
        "code": "LIMIT_EXCEEDED",
        "rule": "agent_budget",
        "reason": "$20.00 on top of $90.00 already used is above the limit of $100.00 in "
        "24 hours of budget agent:bot.",
        "evidence": {
            "budget": "agent:bot",
            "name": "per_day",
            "limit": 100 * USD,
            "used": 90 * USD,
            "requested": 20 * USD,
            "window_ms": DAY_MS,
            "retry_at_ms": told["time_ms"] + 1,
        },
        "remaining": {
            **dict.fromkeys(("per_week", "per_month", "lifetime", "payments", "token", "merchant")),
            "per_day": 95 * USD,
        },
    }
    told["body"]["hold_expires_ms"] = None
    record = decode_record(encode(told))
    replay = Replay(view.grant, view.grant_hash)
    replay.feed(before)
    found = replay.explain(record)
    assert found.decision.to_json() == told["body"]["decision"]
    against = [verdict.rule.name for verdict in found.verdicts if verdict.finding]
    assert against == ["agent_budget", "approval_above"]
    assert found.allowed_at_ms is None
    replay.feed([record])
    with pytest.raises(ReplayError):
        replay.explain(before[0])
