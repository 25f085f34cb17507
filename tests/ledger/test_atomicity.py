"""A batch happens whole or not at all, wherever it fails; then memory is read anew.

The faults are SQLite's own where it can be made to fail, and stand at its door where it cannot.
"""

import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.ledger.account import Account
from engine.ledger.account_loading import load_account
from engine.ledger.payment import Payment
from engine.policy.limits import Limits
from tests.ledger.asking import ask, one_batch
from tests.ledger.oracle import Records, query, read_records
from tests.world import USD, WORKSPACE, World

STORES = ("sqlite",)

DAY = Limits(None, 100 * USD, None, None, None)


def dump(world: World) -> list[list[Any]]:
    data_file = world.store
    tables = ("sessions", "decisions", "records", "outbox", "checkpoints", "meta")
    return [query(data_file, f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables]


class Scene:
    """Two sessions with open holds, one of them just over, and a batch with some of everything."""

    def __init__(self, world: World, clock: ManualClock) -> None:
        self.world = world
        self.views = [world.session(DAY), world.session(DAY)]
        world.pay(self.views[0], 5, hold=True)
        clock.advance(450_000)
        self.holds = [world.pay(view, 20, hold=True) for view in (self.views[0], *self.views)]
        clock.advance(450_000)

    def ask(self) -> list["Future[Payment]"]:
        first, second = self.views
        ledger = self.world.engine.ledger
        return [
            ask(self.world, second, 30 * USD, key="at once"),
            ask(self.world, second, 7 * USD, key="held", hold=True),
            ask(self.world, second, 101 * USD, key="denied"),
            ledger.capture(WORKSPACE, self.holds[0].id, 4 * USD),
            ledger.void(WORKSPACE, self.holds[2].id),
            ask(self.world, first, 76 * USD, key="only after the expiry"),
        ]

    def believed(self) -> list[Any]:
        """What memory holds, after making sure that a fresh reading would hold the same."""
        engine = self.world.engine
        found = []
        for view in self.views:
            kept = engine.writer.call(lambda batch: engine.ledger.account(batch, view.id))  # noqa: B023
            read = engine.writer.call(lambda batch: load_account(batch, view.id))  # noqa: B023
            assert facts(kept) == facts(read)
            found.append(facts(kept))
        records = Records()
        records.feed(read_records(self.world.store))
        size = len(records.leaves)
        log = engine._log
        assert engine.lead.sequence() == size
        assert log.tree.root(size) == records.root(size)
        for view, (_, _, entries) in zip(self.views, found, strict=True):
            used = records.budgets[view.id].used("per_day", engine.clock())
            assert sum(amount for _, amount in entries) == used
        return found

    def expect_done(self, asked: list["Future[Payment]"]) -> None:
        states = [future.result().state for future in asked]
        assert states == ["captured", "held", "denied", "captured", "voided", "captured"]
        assert self.world.engine.remaining(self.views[0]).per_day == 0
        assert self.world.engine.remaining(self.views[1]).per_day == 63 * USD


def facts(account: Account) -> tuple[int, list[int], list[tuple[int, int]]]:
    entries = [
        (entry.decided_ms, entry.amount) for entry in account.spending.windows if entry.amount
    ]
    return account.records, sorted(account.holds), entries


def all_unavailable(asked: list["Future[Payment]"]) -> bool:
    return all(isinstance(future.exception(), Unavailable) for future in asked)


@contextmanager
def fault_at(world: World, place: int, name: str | None) -> Iterator[list[str]]:
    """The statement number `place` of the next batch fails as SQLite does with the error `name`."""
    seen: list[str] = []

    def run(_cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)
        if len(seen) == place:
            error = sqlite3.OperationalError("planted")
            if name is not None:
                error.sqlite_errorname = name
            raise error

    engine = world.engine.database.writer.engine
    for event in ("do_execute", "do_executemany"):
        sa.event.listen(engine, event, run)
    try:
        yield seen
    finally:
        for event in ("do_execute", "do_executemany"):
            sa.event.remove(engine, event, run)


def test_a_fault_at_any_statement_of_a_batch_leaves_nothing_of_it(
    world: World, clock: ManualClock
) -> None:
    scene = Scene(world, clock)
    believed, stored = scene.believed(), dump(world)
    for place in range(1, 100):
        with ExitStack() as planted:
            with one_batch(world.engine.writer):
                asked = scene.ask()
                seen = planted.enter_context(fault_at(world, place, "SQLITE_FULL"))
            errors = [future.exception() for future in asked]
        if errors == [None] * len(asked):
            break
        assert [type(error) for error in errors] == [Unavailable] * len(asked)
        assert len(seen) == place, "nothing ran after the fault"
        assert dump(world) == stored
        assert scene.believed() == believed
    assert place - 1 == len(seen) > 15
    scene.expect_done(asked)
    scene.believed()


@contextmanager
def refusal_at(world: World, place: int) -> Iterator[list[str]]:
    """SQLite itself refuses step number `place` of the next batch, down to its commit."""
    seen: list[str] = []
    steps = {
        sqlite3.SQLITE_INSERT: "INSERT",
        sqlite3.SQLITE_SELECT: "SELECT",
        sqlite3.SQLITE_TRANSACTION: "TRANSACTION",
        sqlite3.SQLITE_UPDATE: "UPDATE",
    }

    def authorise(action: int, what: str | None, *_: Any) -> int:
        if action not in steps or what == "ROLLBACK":
            return sqlite3.SQLITE_OK
        seen.append(f"{steps[action]} {what}")
        return sqlite3.SQLITE_DENY if len(seen) == 1 + place else sqlite3.SQLITE_OK

    connection = world.raw
    connection.set_authorizer(authorise)
    try:
        yield seen
    finally:
        connection.set_authorizer(None)


def test_after_a_failure_that_may_have_lost_writes_nothing_more_is_acknowledged(
    world: World, clock: ManualClock
) -> None:
    scene = Scene(world, clock)
    world.engine.tick()  # a restart does, and expires what is over
    believed, stored = scene.believed(), dump(world)
    refused = []
    for place in range(1, 100):
        with ExitStack() as planted:
            with one_batch(world.engine.writer):
                asked = scene.ask()
                # Its first step is the commit of the batch that runs now, which is let pass.
                seen = planted.enter_context(refusal_at(world, place))
            errors = [future.exception() for future in asked]
        if errors == [None] * len(asked):
            break
        refused.append(seen[place])
        assert [type(error) for error in errors] == [Unavailable] * len(asked)
        assert world.engine.writer.fault is not None
        for view in scene.views:
            with pytest.raises(Unavailable, match="restart"):
                world.pay(view, 1)
        assert not world.engine.ready()["ready"]
        assert dump(world) == stored
        world.reopen()
        assert dump(world) == stored
        assert scene.believed() == believed
    assert refused[0] == "TRANSACTION BEGIN"
    assert refused[-1] == "TRANSACTION COMMIT"
    assert {"INSERT decisions", "INSERT records", "INSERT outbox", "UPDATE decisions"} < {*refused}
    scene.expect_done(asked)
    scene.believed()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("SQLITE_BUSY", True),
        ("SQLITE_BUSY_SNAPSHOT", True),
        ("SQLITE_LOCKED", True),
        ("SQLITE_FULL", True),
        ("SQLITE_CONSTRAINT_UNIQUE", True),
        ("SQLITE_IOERR", False),
        ("SQLITE_IOERR_FSYNC", False),
        ("SQLITE_IOERR_WRITE", False),
        ("SQLITE_CORRUPT", False),
        ("SQLITE_READONLY", False),
        ("SQLITE_CANTOPEN", False),
        ("SQLITE_NOTADB", False),
        ("SQLITE_ERROR", False),
        (None, False),
    ],
)
def test_only_a_failure_that_surely_lost_nothing_passes(
    world: World, name: str | None, passes: bool
) -> None:
    view = world.session(DAY)
    with ExitStack() as planted:
        with one_batch(world.engine.writer):
            asked = ask(world, view, USD, key="k")
            planted.enter_context(fault_at(world, 3, name))
        with pytest.raises(Unavailable):
            asked.result()
    if not passes:
        with pytest.raises(Unavailable):
            world.pay(view, 1, key="k")
        world.reopen()
    payment = world.pay(view, 1, key="k")
    assert (payment.number, payment.state, payment.replayed) == (1, "captured", False)


def test_a_write_that_the_system_refuses_is_such_a_failure(world: World) -> None:
    """The process may write no further than the first kilobyte of any file: a real I/O error."""
    view = world.session(DAY)
    kept = world.pay(view, 1, key="kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        asked = [ask(world, view, 2 * USD, key=f"lost {number}") for number in range(3)]
        errors = [type(future.exception()) for future in asked]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert errors == [Unavailable] * 3
    assert "SQLITE_IOERR_WRITE" in str(world.engine.writer.fault)
    with pytest.raises(Unavailable):
        world.pay(view, 2, key="lost 0")
    world.reopen()
    assert world.pay(view, 1, key="kept").id == kept.id
    assert world.engine.remaining(view).per_day == 99 * USD
    assert world.pay(view, 2, key="lost 0").state == "captured"


def test_a_full_disk_refuses_and_goes_on_when_there_is_room_again(world: World) -> None:
    view = world.session()
    connection = world.raw
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    acknowledged, number = [], 0
    try:
        while number < 200:
            acknowledged.append(world.pay(view, 1, key=f"{number}"))
            number += 1
    except Unavailable:
        stored = dump(world)
    assert 0 < number < 200
    with one_batch(world.engine.writer):
        asked = [ask(world, view, USD, description="x" * 1000) for _ in range(20)]
    assert [type(future.exception()) for future in asked] == [Unavailable] * 20
    assert dump(world) == stored
    assert world.engine.ready()["ready"]
    connection.execute("PRAGMA max_page_count = 1073741823")
    assert not world.pay(view, 1, key=f"{number}").replayed
    for again, first in enumerate(acknowledged):
        assert world.pay(view, 1, key=f"{again}").id == first.id
    assert len(stored[1]) + 1 == len(dump(world)[1])
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    Records().feed(read_records(world.store))


def test_a_log_line_that_cannot_be_written_stops_nothing(world: World) -> None:
    """Standard error is often a file on the same full disk."""
    view = world.session(DAY)
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 (its closing must fail too)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(full))
    try:
        with ExitStack() as planted:
            with one_batch(world.engine.writer):
                asked = ask(world, view, USD)
                planted.enter_context(fault_at(world, 3, "SQLITE_FULL"))
            assert isinstance(asked.exception(timeout=20), Unavailable)
    finally:
        structlog.reset_defaults()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert ask(world, view, USD).result(timeout=20).state == "captured"


def test_a_writer_that_fails_before_it_decides_leaves_nobody_waiting(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, begin = fresh.session(DAY), Future.set_running_or_notify_cancel
    begun: list[Future[Any]] = []

    def fails_at_the_second(future: Future[Any]) -> bool:
        begun.append(future)
        if len(begun) == 2:
            raise MemoryError
        return begin(future)

    monkeypatch.setattr(Future, "set_running_or_notify_cancel", fails_at_the_second)
    with one_batch(fresh.engine.writer):
        asked = [ask(fresh, view, USD, key=str(n)) for n in range(3)]
        asked[2].cancel()
    told = [*asked[:2], ask(fresh, view, USD)]
    why = "the writer failed (MemoryError); restart"
    assert [str(each.exception(timeout=20)) for each in told] == [why] * 3
    assert fresh.engine.ready()["faults"] == [why]
    fresh.reopen()
    again = [ask(fresh, view, USD, key=str(n)).result(timeout=20) for n in range(3)]
    assert [each.replayed for each in again] == [False] * 3, "none was decided"


@pytest.mark.parametrize("failure", [ValueError("not provided for"), SystemExit()])
def test_what_is_not_provided_for_ends_the_acknowledging_and_leaves_nobody_waiting(
    fresh: World, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    view, writer = fresh.session(DAY), fresh.engine.writer
    answer, answered = Future.set_result, []

    def fails_at_the_second(future: Future[Any], result: Any) -> None:
        if isinstance(result, Payment):
            if answered:
                raise failure
            answered.append(result)
        answer(future, result)

    with one_batch(writer):
        asked = [ask(fresh, view, USD, key=str(n)) for n in range(3)]
        monkeypatch.setattr(Future, "set_result", fails_at_the_second)
    with pytest.raises(Unavailable):
        asked[2].result(timeout=20)
    monkeypatch.undo()
    assert asked[0].result(timeout=20).state == "captured"
    told = [asked[1], ask(fresh, view, USD)]
    why = f"the writer failed ({type(failure).__name__}); restart"
    assert [str(each.exception(timeout=20)) for each in told] == [why] * 2
    assert fresh.engine.ready()["faults"] == [why]
    fresh.reopen()
    again = [ask(fresh, view, USD, key=str(n)).result(timeout=20) for n in range(3)]
    assert [each.replayed for each in again] == [True] * 3, "all three were committed"
