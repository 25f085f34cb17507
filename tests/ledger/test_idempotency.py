"""One key, one payment: the same answer for as long as the session is kept."""

import json
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.errors import Conflict, InvalidInput
from engine.ledger.payment import Payment
from engine.policy.limits import DAY_MS, Limits
from engine.sessions.session import SessionView
from engine.settings import Token
from tests.ledger.asking import ask, at_once, one_batch
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World

DAY = Limits(None, 100 * USD, None, None, None)
EURC = Token(symbol="EURC", asset="eip155:8453/erc20:0x" + "ab" * 20, decimals=6, usd_price="1")


def decisions(world: World, view: SessionView) -> int:
    """How many decisions of a session there are, in the table and in the log alike."""
    data_file = world.store
    rows = query(data_file, "SELECT count(*) FROM decisions WHERE session_id = ?", view.id)
    bodies = query(data_file, "SELECT body FROM records WHERE stream = ?", view.id)
    recorded = [json.loads(body)["kind"] for (body,) in bodies].count("payment.decided")
    assert rows == [(recorded,)]
    return recorded


def same(first: Payment, again: Payment) -> bool:
    """Whether `again` is the answer `first`, marked as a replay."""
    fields = ("id", "request", "decision", "amount", "decided_ms", "expires_ms")
    assert (first.replayed, again.replayed) == (False, True)
    return all(getattr(first, name) == getattr(again, name) for name in fields)


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("hold", [False, True], ids=["captured", "held"])
@pytest.mark.parametrize("dollars", [60, 101], ids=["allowed", "denied"])
def test_the_same_request_again_gets_the_same_answer_and_spends_nothing(
    world: World, dollars: int, hold: bool, restart: bool
) -> None:
    view = world.session(DAY)
    first = world.pay(view, dollars, key="k", hold=hold)
    before = world.engine.remaining(view)
    if restart:
        world.reopen()
    again = world.pay(view, dollars, key="k", hold=hold)
    assert same(first, again)
    assert again.state == first.state
    assert world.engine.remaining(view) == before
    assert decisions(world, view) == 1


def test_the_answer_stays_while_the_hold_moves_on(world: World) -> None:
    view = world.session(DAY)
    first = world.pay(view, 60, key="k", hold=True)
    world.engine.ledger.capture(WORKSPACE, first.id, 10 * USD).result()
    again = world.pay(view, 60, key="k", hold=True)
    assert same(first, again)
    assert (again.state, again.captured) == ("captured", 10 * USD)
    assert world.engine.remaining(view).per_day == 90 * USD


def test_a_replay_in_the_batch_of_the_first_request_is_one_payment(world: World) -> None:
    view = world.session(DAY)
    with one_batch(world.engine.writer):
        first, *others = [ask(world, view, 60 * USD, key="k", hold=True) for _ in range(20)]
        ended = world.engine.ledger.void(WORKSPACE, f"pay_{view.id.removeprefix('sess_')}_1")
        last = ask(world, view, 60 * USD, key="k", hold=True)
    assert all(same(first.result(), other.result()) for other in (*others, last))
    assert ended.result().state == last.result().state == "voided"
    assert world.engine.remaining(view).per_day == 100 * USD
    assert decisions(world, view) == 1


def test_two_hundred_callers_with_one_key_make_one_payment(world: World) -> None:
    view = world.session(DAY)
    for number in range(5):
        key = f"round {number}"
        answers = at_once(200, lambda _: ask(world, view, 7 * USD, key=key).result())  # noqa: B023
        paid = [answer for answer in answers if isinstance(answer, Payment)]
        first = [answer for answer in paid if not answer.replayed]
        assert (len(paid), len(first)) == (200, 1)
        assert {answer.id for answer in paid} == {first[0].id}
        assert decisions(world, view) == number + 1
        assert world.engine.remaining(view).per_day == (100 - 7 * (number + 1)) * USD


REQUEST: dict[str, Any] = {"micro_usd": 60 * USD, "hold": True, "description": "a book"}


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("dollars", [60, 101], ids=["allowed", "denied"])
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("amount_micro_usd", {"micro_usd": 60 * USD + 1}),
        ("amount_micro_usd", {"micro_usd": 1}),
        ("capture", {"hold": False}),
        ("merchant", {"merchant": "other"}),
        ("merchant", {"merchant": None}),
        ("token", {"token": "eip155:131277322940537/erc20:0x" + "ab" * 20}),
        ("chain", {"token": EURC.asset, "chain": EURC.chain}),
        ("permission", {"permission": "refund"}),
        ("description", {"description": "two books"}),
        ("description", {"description": None}),
    ],
    ids=lambda value: (
        value
        if isinstance(value, str)
        else "=".join(map(str, *value.items()))
        if len(value) == 1
        else "both"
    ),
)
def test_another_request_under_a_used_key_is_a_conflict_that_names_the_field(
    world: World, field: str, change: dict[str, Any], dollars: int, restart: bool
) -> None:
    view = world.session(DAY)
    request = {**REQUEST, "micro_usd": dollars * USD}
    first = ask(world, view, key="k", **request).result()
    before = world.engine.remaining(view)
    if restart:
        world.reopen()
    with pytest.raises(Conflict) as refused:
        ask(world, view, key="k", **{**request, **change}).result()
    assert refused.value.code == "idempotency_key_reused"
    assert refused.value.details["field"] == field
    assert world.engine.remaining(view) == before
    assert same(first, ask(world, view, key="k", **request).result())
    assert decisions(world, view) == 1


@pytest.mark.parametrize("memo", [{"metadata_json": '{"a":2}'}, {"description": None, "x": 1}])
def test_a_memo_is_part_of_the_request(world: World, memo: dict[str, Any]) -> None:
    view = world.session(DAY)
    ledger, request = world.engine.ledger, world.request(1)
    ledger.authorise(view.id, request, memo={"metadata_json": '{"a":1}'}, key="k").result()
    with pytest.raises(Conflict):
        ledger.authorise(view.id, request, memo=memo, key="k").result()


def test_of_two_requests_under_one_key_in_one_batch_the_first_counts(world: World) -> None:
    view = world.session(DAY)
    with one_batch(world.engine.writer):
        first = ask(world, view, 60 * USD, key="k")
        other = ask(world, view, 61 * USD, key="k")
    assert first.result().state == "captured"
    with pytest.raises(Conflict):
        other.result()
    assert decisions(world, view) == 1


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
def test_a_denial_is_sticky_after_the_window_frees(
    world: World, clock: ManualClock, restart: bool
) -> None:
    view = world.session(DAY, duration_ms=3 * DAY_MS)
    world.pay(view, 100)
    denied = world.pay(view, 1, key="k")
    assert denied.decision["code"] == "LIMIT_EXCEEDED"
    clock.advance(DAY_MS)
    if restart:
        world.reopen()
    assert same(denied, world.pay(view, 1, key="k"))
    assert world.pay(view, 1, key="another").state == "captured"


def test_an_answer_is_still_given_when_the_session_is_over(world: World) -> None:
    view = world.session(DAY)
    first = world.pay(view, 60, key="k")
    world.engine.revoke_session(WORKSPACE, view.id, by="test")
    assert same(first, world.pay(view, 60, key="k"))
    assert world.pay(view, 1, key="new").decision["code"] == "SESSION_REVOKED"


def test_keys_belong_to_a_session(world: World) -> None:
    views = [world.session(DAY), world.session(DAY)]
    with one_batch(world.engine.writer):
        asked = [ask(world, view, 60 * USD, key="k") for view in views]
    paid = [future.result() for future in asked]
    assert [payment.replayed for payment in paid] == [False, False]
    assert [payment.session_id for payment in paid] == [view.id for view in views]
    assert ask(world, views[1], 60 * USD, key="k").result().id == paid[1].id


def test_without_a_key_every_request_is_a_new_one(world: World) -> None:
    view = world.session(DAY)
    assert world.pay(view, 1).id != world.pay(view, 1).id
    assert decisions(world, view) == 2


@pytest.mark.parametrize("key", ["k", "k" * 255, "ключ", " ", "k\x01", "K"])
def test_a_key_is_taken_as_it_is(world: World, key: str) -> None:
    view = world.session(DAY)
    world.pay(view, 1, key="something else")
    assert not world.pay(view, 1, key=key).replayed
    assert world.pay(view, 1, key=key).replayed
    assert decisions(world, view) == 2


@pytest.mark.parametrize("key", ["", "k" * 256, "k\x00"])
def test_a_key_without_length_or_of_too_much_is_refused(world: World, key: str) -> None:
    view = world.session(DAY)
    with pytest.raises(InvalidInput) as refused:
        world.pay(view, 1, key=key)
    assert refused.value.field == "Idempotency-Key"
    assert decisions(world, view) == 0
