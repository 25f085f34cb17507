"""Whoever waits shares one commit, nobody is answered before it, and one's fault is one's own."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from engine.db.tables import Meta, table
from engine.errors import Conflict, InvalidInput, NotFound, Unavailable
from engine.ledger.batch import Batch
from engine.ledger.payment import Payment
from engine.ledger.writer import BATCH_COMMANDS_MAX
from engine.policy.limits import Limits
from tests.ledger.asking import ask, at_once, one_batch
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World

STORES = ("sqlite",)

DAY = Limits(None, 100 * USD, None, None, None)


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """What SQLite itself says it runs on the writing connection."""
    seen: list[str] = []
    world.raw.set_trace_callback(seen.append)
    yield seen
    world.raw.set_trace_callback(None)


@pytest.mark.parametrize(
    ("callers", "commits"),
    [(1, 1), (2, 1), (BATCH_COMMANDS_MAX, 1), (BATCH_COMMANDS_MAX + 1, 2)],
)
def test_all_who_wait_share_one_commit(world: World, callers: int, commits: int) -> None:
    views = [world.session() for _ in range(3)]
    with statements(world) as seen:
        with one_batch(world.engine.writer):
            asked = [ask(world, views[n % 3], USD, hold=n % 2 == 0) for n in range(callers)]
        paid = [future.result() for future in asked]
    assert seen.count("COMMIT") == 1 + commits, "the gate has one of its own"
    assert seen.count("BEGIN IMMEDIATE") == 1 + commits
    assert all(payment.decision["allowed"] for payment in paid)
    assert len({payment.decided_ms for payment in paid}) == 1


def test_many_threads_need_few_commits(world: World) -> None:
    view = world.session()
    with statements(world) as seen:
        at_once(50, lambda _: [ask(world, view, 1) for _ in range(20)][-1].result())
        world.engine.remaining(view)
    assert seen.count("COMMIT") < 200, "1000 payments"


def test_nobody_is_answered_before_the_commit_and_everybody_sees_it_after(world: World) -> None:
    view = world.session(DAY)
    data_file = world.store
    states = "SELECT state FROM decisions WHERE session_id = ? AND number = ?"
    asked: list[Future[Payment]] = []
    at_commit: list[tuple[int, list[Any]]] = []
    at_answer: list[tuple[str, list[Any]]] = []

    def about_to_run(statement: str) -> None:
        if statement == "COMMIT":
            answered = sum(future.done() for future in asked)
            at_commit.append((answered, query(data_file, states, view.id, 0)))

    def answered(future: "Future[Payment]") -> None:  # on the writer's thread, at that moment
        payment = future.result()
        at_answer.append((payment.state, query(data_file, states, view.id, payment.number)))

    connection = world.raw
    with one_batch(world.engine.writer):
        asked += [ask(world, view, 30 * USD, hold=n == 1) for n in range(5)]
        for future in asked:
            future.add_done_callback(answered)
        connection.set_trace_callback(about_to_run)
    expected = ["captured", "held", "captured", "denied", "denied"]
    assert [future.result().state for future in asked] == expected
    world.engine.remaining(view)  # one more batch: the callbacks before it are through
    connection.set_trace_callback(None)
    assert at_commit[:2] == [(0, []), (0, [])], "the gate's commit and theirs"
    assert at_answer == [(state, [(state,)]) for state in expected]


def test_a_command_that_fails_harms_only_its_caller(world: World) -> None:
    view = world.session(DAY)

    def fail(batch: Batch) -> None:
        batch.record(view.stream, "never", {"written": True})
        raise ZeroDivisionError

    with one_batch(world.engine.writer):
        before = ask(world, view, 30 * USD, key="before")
        failing = world.engine.writer.submit(fail)
        again = ask(world, view, 30 * USD, key="before")
        after = ask(world, view, 70 * USD, key="after")
    with pytest.raises(Unavailable):
        failing.result()
    assert [future.result().state for future in (before, after)] == ["captured", "captured"]
    assert (again.result().id, again.result().replayed) == (before.result().id, True)
    assert world.engine.remaining(view).per_day == 0
    assert world.engine.writer.fault is None
    data_file = world.store
    assert (
        query(data_file, "SELECT 1 FROM records WHERE CAST(body AS TEXT) LIKE '%\"never\"%'") == []
    )
    world.reopen()
    assert world.engine.remaining(view).per_day == 0


def test_a_command_that_refuses_after_it_has_written_leaves_nothing(world: World) -> None:
    view = world.session(DAY)

    def refuse(batch: Batch) -> None:
        batch.insert(table(Meta), {"key": "half", "value": "done"})
        raise Conflict("too late to refuse")

    with one_batch(world.engine.writer):
        refused = world.engine.writer.submit(refuse)
        paid = ask(world, view, 30 * USD)
    with pytest.raises(Unavailable):
        refused.result()
    assert paid.result().state == "captured"
    with world.engine.database.reading() as connection:
        half = sa.select(table(Meta)).where(table(Meta).c.key == "half")
        assert connection.execute(half).all() == []


def test_a_refusal_is_for_its_caller_alone(world: World) -> None:
    view = world.session(DAY)
    ledger = world.engine.ledger
    with one_batch(world.engine.writer):
        asked = [
            ask(world, view, 30 * USD, key="k"),
            ask(world, view, 31 * USD, key="k"),
            ledger.capture(WORKSPACE, "pay_none"),
            ask(world, view, 30 * USD, key="k2"),
        ]
    errors = [type(future.exception()) for future in asked]
    assert errors == [type(None), Conflict, NotFound, type(None)]
    assert world.engine.remaining(view).per_day == 40 * USD


def test_an_unknown_session_is_not_found(world: World) -> None:
    ledger = world.engine.ledger
    with pytest.raises(NotFound):
        ledger.remaining("sess_none").result()
    with pytest.raises(NotFound):
        ledger.authorise("sess_none", world.request(1), memo={}).result()


def test_a_memo_that_the_log_cannot_hold_is_refused_before_it_is_queued(world: World) -> None:
    view = world.session(DAY)
    with pytest.raises(InvalidInput):
        ask(world, view, USD, description="\ud800")
    assert world.engine.remaining(view).per_day == 100 * USD


def test_who_gives_up_before_the_decision_pays_nothing(world: World) -> None:
    view = world.session(DAY)
    with one_batch(world.engine.writer):
        given_up = ask(world, view, 30 * USD)
        assert given_up.cancel()
        kept = ask(world, view, 30 * USD)
    assert kept.result().number == 1
    assert world.engine.remaining(view).per_day == 70 * USD


def test_who_waits_when_the_engine_stops_is_answered_and_who_comes_later_is_refused(
    fresh: World,
) -> None:
    view = fresh.session(DAY)
    writer = fresh.engine.writer
    with one_batch(writer):
        waiting = [ask(fresh, view, USD) for _ in range(30)]
        stopping = threading.Thread(target=writer.stop)
        stopping.start()
        while not writer._stopped:
            pass
        late = ask(fresh, view, USD)
        with pytest.raises(Unavailable):
            late.result()
    stopping.join()
    assert [future.result().state for future in waiting] == ["captured"] * 30
    fresh.reopen()
    assert fresh.engine.remaining(view).per_day == 70 * USD


def test_however_many_commits_get_their_place_in_the_log_with_one_statement(world: World) -> None:
    views = [world.session() for _ in range(2)]
    size = world.engine.lead.sequence()
    for count in (1, 3, 2):
        with one_batch(world.engine.writer):
            asked = [ask(world, views[n % 2], 1, hold=True) for n in range(count)]
        assert all(each.result() for each in asked)
    with statements(world) as seen:
        assert world.engine.lead.sequence() == size + 6
    assert sum(each.startswith("UPDATE log_batches") for each in seen) == 1
    places = "SELECT first_leaf, length(leaf_hashes) FROM log_batches WHERE first_leaf >= ?"
    found = query(world.store, f"{places} ORDER BY id", size)
    assert found == [(size, 32), (size + 1, 3 * 32), (size + 4, 2 * 32)]
