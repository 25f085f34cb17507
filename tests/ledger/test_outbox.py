"""Every change of a payment leaves one event, beside the record that tells of it."""

import json
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.fsck.check import check
from engine.ledger.payment import Payment
from engine.policy.limits import DAY_MS, HOUR_MS, Limits
from engine.sessions.session import SessionView
from tests.ledger.approving import replayed
from tests.ledger.asking import ask, one_batch
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World

DAY = Limits(None, 100 * USD, None, None, None)
TTL_MS = 900_000


def events(world: World, view: SessionView) -> list[tuple[Any, ...]]:
    """(event, payload, sequence number, when) of a session, but for that of its creation."""
    rows = query(
        world.store,
        "SELECT event, payload_json, seq, created_ms, workspace_id FROM outbox "
        "WHERE stream = ? ORDER BY id",
        view.id,
    )
    assert rows.pop(0)[0] == "agent.session.created"
    assert all(row[4:] == (WORKSPACE,) for row in rows)
    return [(name, json.loads(payload), *rest[:2]) for name, payload, *rest in rows]


def names(world: World, view: SessionView) -> list[str]:
    return [name for name, *_ in events(world, view)]


def capture(world: World, payment: Payment) -> None:
    world.engine.ledger.capture(WORKSPACE, payment.id, 10 * USD).result()


def void(world: World, payment: Payment) -> None:
    world.engine.ledger.void(WORKSPACE, payment.id).result()


def expire(world: World, _payment: Payment) -> None:
    world.clock.advance(TTL_MS)  # type: ignore[attr-defined]
    world.engine.expiry.holds.run()


@pytest.mark.parametrize(
    ("end", "state", "event", "captured"),
    [
        (None, "held", None, 0),
        (capture, "captured", "payment.confirmed", 10 * USD),
        (void, "voided", "payment.voided", 0),
        (expire, "expired", "payment.expired", 0),
    ],
    ids=["held", "captured", "voided", "expired"],
)
def test_a_hold_tells_of_its_beginning_and_of_its_end(
    world: World, end: Any, state: str, event: str | None, captured: int
) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 60, key="k", hold=True)
    payload = {
        "payment_id": payment.id,
        "approval_id": None,
        "session_id": view.id,
        "state": "held",
        "amount_micro_usd": 60 * USD,
        "captured_micro_usd": 0,
        "code": "ALLOWED",
        "type": "agent",
        "label": None,
    }
    expected = [("payment.created", payload, 1, payment.decided_ms)]
    if end is not None:
        end(world, payment)
        changed = {**payload, "state": state, "captured_micro_usd": captured}
        expected.append((event, changed, 2, world.clock()))
    world.pay(view, 60, key="k", hold=True)
    assert events(world, view) == expected, "and the replay tells nothing"


def test_a_payment_at_once_tells_that_it_is_confirmed(world: World) -> None:
    view = world.session(DAY)
    payment = world.pay(view, 60)
    [(name, payload, seq, _)] = events(world, view)
    assert (name, payload["state"], payload["captured_micro_usd"]) == (
        "payment.confirmed",
        "captured",
        60 * USD,
    )
    assert (payload["payment_id"], seq) == (payment.id, 2), "the record of the capture"


def test_the_sequence_number_is_that_of_a_record_of_the_same_payment(world: World) -> None:
    views = [world.session(DAY) for _ in range(3)]
    with one_batch(world.engine.writer):
        asked = [ask(world, views[n % 3], 7 * USD, hold=n % 2 == 0) for n in range(30)]
    assert all(future.result().decision["allowed"] for future in asked)
    for view in views:
        bodies = query(
            world.store,
            "SELECT body FROM records WHERE stream = ? ORDER BY seq",
            view.id,
        )
        records = [json.loads(body)["body"] for (body,) in bodies]
        told = events(world, view)
        assert len(told) == 10
        for _, payload, seq, _ in told:
            assert records[seq]["payment"] == payload["payment_id"]


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
def test_no_two_events_stand_beside_one_record(world: World, restart: bool) -> None:
    view = world.session(DAY)
    for _ in range(5):
        world.pay(view, 1)
        if restart:
            world.reopen()
    data_file = world.store
    beside = "SELECT count(*), count(DISTINCT stream || seq), count(r.seq) FROM outbox "
    where = "LEFT JOIN records r USING (id, stream, seq)"
    [(count, different, known)] = query(data_file, beside + where)
    assert count == different == known > 5


def test_a_reached_limit_is_told_once_in_a_row_of_denials(world: World, clock: ManualClock) -> None:
    view = world.session(DAY, merchants=("books",), duration_ms=3 * DAY_MS)
    world.pay(view, 95)
    for _ in range(3):
        world.pay(view, 6)
        world.pay(view, 1, merchant="casino")
    reached = ["payment.confirmed", "agent.session.limit_reached"]
    assert names(world, view) == reached
    world.pay(view, 5)
    world.pay(view, 1)
    assert names(world, view) == reached * 2, "a payment between two rows of denials"
    clock.advance(DAY_MS)
    hold = world.pay(view, 100, hold=True)
    world.pay(view, 1)
    world.pay(view, 1)
    void(world, hold)
    world.pay(view, 101)
    assert names(world, view)[4:] == [
        "payment.created",
        "agent.session.limit_reached",
        "payment.voided",
        "agent.session.limit_reached",
    ], "a void between two rows of denials"


def test_a_limit_is_reached_again_once_the_window_has_freed_what_was_denied(
    world: World, clock: ManualClock
) -> None:
    view = world.session(DAY, duration_ms=3 * DAY_MS)
    world.pay(view, 60)
    clock.advance(HOUR_MS)
    world.pay(view, 40)
    reached = "agent.session.limit_reached"
    denied = world.pay(view, 50)
    frees_ms = denied.decision["evidence"]["retry_at_ms"]
    assert frees_ms == clock() - HOUR_MS + DAY_MS
    assert world.engine.ledger.left(view.id).result().frees_ms == frees_ms
    clock.advance(frees_ms - clock() - 1)
    world.reopen()  # what is known of it is what the records tell
    assert world.engine.ledger.left(view.id).result().frees_ms == frees_ms
    world.pay(view, 50)
    assert names(world, view).count(reached) == 1
    clock.advance(1)
    assert world.engine.ledger.left(view.id).result().frees_ms is None
    again = world.pay(view, 61)
    assert (again.state, names(world, view).count(reached)) == ("denied", 2)
    assert world.engine.ledger.left(view.id).result().frees_ms > frees_ms
    assert world.pay(view, 60).state == "captured"  # what fits is paid, and ends it
    assert world.engine.ledger.left(view.id).result().frees_ms is None


def test_other_denials_tell_nothing(world: World) -> None:
    view = world.session(Limits(50 * USD, None, None, None, None), merchants=("books",))
    for dollars, merchant in ((51, "books"), (1, "casino"), (1, None)):
        assert world.pay(view, dollars, merchant=merchant).state == "denied"
    assert events(world, view) == []


def test_the_event_of_a_reached_limit_names_the_denied_payment(world: World) -> None:
    view = world.session(DAY)
    denied = world.pay(view, 101)
    [(name, payload, seq, at_ms)] = events(world, view)
    assert (name, seq, at_ms) == ("agent.session.limit_reached", 1, denied.decided_ms)
    assert payload == {
        "payment_id": denied.id,
        "approval_id": None,
        "session_id": view.id,
        "state": "denied",
        "amount_micro_usd": 101 * USD,
        "captured_micro_usd": 0,
        "code": "LIMIT_EXCEEDED",
        "type": "agent",
        "label": None,
    }


@pytest.mark.parametrize("by", ["restriction lifted", "resumed", "paused and resumed"])
def test_a_session_is_at_its_limit_no_more_once_its_policy_changes_or_it_is_resumed(
    world: World, by: str
) -> None:
    sessions = world.engine.sessions
    view = world.session(DAY, duration_ms=3 * DAY_MS)
    sessions.restrict(WORKSPACE, view.id, ["at most 1 payment per day"], by="test")
    world.pay(view, 1)
    assert world.pay(view, 1).decision["rule"] == "payments"
    assert world.engine.ledger.left(view.id).result().frees_ms is not None
    if by == "restriction lifted":
        sessions.restrict(WORKSPACE, view.id, [], by="test")
    if by == "paused and resumed":
        sessions.pause(WORKSPACE, view.id, by="test")
    if by != "restriction lifted":
        assert sessions.resume(WORKSPACE, view.id, by="test").state == "active"
    for restart in (False, True):
        if restart:
            world.reopen()
        assert world.engine.ledger.left(view.id).result().frees_ms is None
    records = world.engine.ready()["records"]
    world.engine.sessions.resume(WORKSPACE, view.id, by="test")
    assert world.engine.ready()["records"] == records, "again changes nothing"
    world.pay(view, 101)
    assert names(world, view).count("agent.session.limit_reached") == 2
    assert check(world.store, patience_s=0).clean
    replayed(world, view)
