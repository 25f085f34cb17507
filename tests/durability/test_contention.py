"""Others are in the way on PostgreSQL: bounded retries, then a refusal, and never a second payment.

The failures are PostgreSQL's own, under the codes that it gives them (manual, appendix A).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from engine.db import postgres as engine_postgres
from engine.errors import Unavailable
from engine.ledger.writer import CONTENTIONS_MAX
from engine.policy.limits import Limits
from tests.ledger.asking import ask, at_once, one_batch
from tests.ledger.oracle import Records, query, read_records
from tests.world import USD, World

KEK = "the same for every server"
DAY = Limits(None, 100 * USD, None, None, None)
SERIALIZATION, DEADLOCK, LOCKED = "40001", "40P01", "55P03"
LOCK_TIMEOUT_MS = 200

STORM = """
    CREATE SEQUENCE storm;
    CREATE FUNCTION storm() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('storm') <= {times} THEN
            RAISE EXCEPTION 'in the way' USING ERRCODE = '{state}';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER storm AFTER INSERT ON decisions FOR EACH STATEMENT EXECUTE FUNCTION storm();
"""
CALM = "DROP TRIGGER storm ON decisions"


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """It waits for a lock a little shorter than it does for its users."""
    monkeypatch.setattr(engine_postgres, "LOCK_TIMEOUT_MS", LOCK_TIMEOUT_MS)
    opened = World(tmp_path / "data", database=database_url, kek=KEK)
    yield opened
    opened.engine.close()


@contextmanager
def contentions(world: World) -> Iterator[list[str]]:
    """The codes of what stood in the way."""
    states: list[str] = []
    database = world.engine.database
    honest = database.contended

    def heard(error: Any) -> bool:
        states.append(error.orig.sqlstate)
        return honest(error)

    database.contended = heard  # type: ignore[method-assign]
    try:
        yield states
    finally:
        database.contended = honest  # type: ignore[method-assign]


def execute(world: World, statement: str) -> None:
    with psycopg.connect(str(world.store), autocommit=True) as connection:
        connection.execute(statement.encode())


def decided(world: World) -> int:
    """How many payments there are, in the records as in the rows."""
    records = Records()
    records.feed(read_records(world.store))
    assert query(world.store, "SELECT count(*) FROM decisions") == [(len(records.decided),)]
    return len(records.decided)


@pytest.mark.parametrize("state", [SERIALIZATION, DEADLOCK, LOCKED])
def test_it_is_tried_again_until_it_is_done(world: World, state: str) -> None:
    view = world.session(DAY)
    execute(world, STORM.format(state=state, times=CONTENTIONS_MAX))
    with contentions(world) as states:
        paid = world.pay(view, 60, key="k")
    assert states == [state] * CONTENTIONS_MAX
    assert (paid.state, decided(world)) == ("captured", 1)
    assert world.engine.remaining(view).per_day == 40 * USD
    assert world.pay(view, 60, key="k").id == paid.id


@pytest.mark.parametrize("state", [SERIALIZATION, DEADLOCK, LOCKED])
def test_it_is_refused_when_it_was_tried_often_enough(world: World, state: str) -> None:
    view = world.session(DAY)
    execute(world, STORM.format(state=state, times=10**6))
    with pytest.raises(Unavailable, match="same key"):
        world.pay(view, 60, key="k")
    assert query(world.store, "SELECT last_value FROM storm") == [(CONTENTIONS_MAX + 1,)]
    assert decided(world) == 0
    assert world.engine.writer.fault is None, "it passes"
    execute(world, CALM)
    paid = world.pay(view, 60, key="k")
    assert (paid.state, paid.replayed) == ("captured", False)
    assert world.pay(view, 41).state == "denied"
    assert decided(world) == 2


def test_a_failure_of_another_kind_is_not_tried_again(world: World) -> None:
    view = world.session(DAY)
    execute(world, STORM.format(state="P0001", times=1))
    with contentions(world) as states, pytest.raises(Unavailable):
        world.pay(view, 60, key="k")
    assert states == ["P0001"]
    assert world.pay(view, 60, key="k").state == "captured"


def test_a_row_that_somebody_keeps(world: World) -> None:
    kept, free = world.session(DAY), world.session(DAY)
    with psycopg.connect(str(world.store)) as other:
        other.execute("SELECT 1 FROM stream_heads WHERE id = %s FOR UPDATE", (kept.id,))
        with contentions(world) as states, pytest.raises(Unavailable):
            world.pay(kept, 60, key="k")
        assert states == [LOCKED] * CONTENTIONS_MAX, "and no more after the last"
        assert world.pay(free, 60).state == "captured"
        assert decided(world) == 1
    assert world.pay(kept, 60, key="k").replayed is False
    assert world.pay(kept, 41).state == "denied"


def test_a_deadlock(world: World) -> None:
    """The engine holds the first row and waits for the second, another the other way round."""
    first, second = sorted((world.session(DAY) for _ in range(2)), key=lambda view: view.id)
    lock = "SELECT 1 FROM stream_heads WHERE id = %s FOR UPDATE"
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = %s"
    )
    # Time for the other to come into its way, and no lock timeout before.
    for patience in ("deadlock_timeout = '2s'", "lock_timeout = '1min'"):
        setting = sa.text(f"SET {patience}")
        world.engine.writer.call(lambda _, s=setting: world.engine.database.writer.execute(s))
    with (
        psycopg.connect(str(world.store)) as other,
        psycopg.connect(str(world.store), autocommit=True) as watch,
        contentions(world) as states,
    ):
        other.execute("SET LOCAL deadlock_timeout = '1min'")  # so that it is not the victim
        other.execute(lock, (second.id,))
        with one_batch(world.engine.writer):
            asked = [ask(world, view, 60 * USD, key=view.id) for view in (first, second)]
        while watch.execute(waiting, ("tallystick",)).fetchone() is None:
            assert not asked[0].done()
        other.execute(lock, (first.id,))
        other.rollback()
        assert [future.result().state for future in asked] == ["captured", "captured"]
    assert DEADLOCK in states
    assert decided(world) == 2


def test_a_hot_row_and_sixteen_callers(world: World) -> None:
    """Somebody takes the rows again and again, for longer than is waited for them."""
    views = [world.session(DAY) for _ in range(2)]
    calm, holding = threading.Event(), threading.Event()

    def storm() -> None:
        with psycopg.connect(str(world.store)) as other:
            while not calm.is_set():
                for view in reversed(views):
                    other.execute("SELECT 1 FROM stream_heads WHERE id = %s FOR UPDATE", (view.id,))
                holding.set()
                calm.wait(2 * LOCK_TIMEOUT_MS / 1000)
                other.rollback()
                calm.wait(LOCK_TIMEOUT_MS / 4000)

    refused = []

    def call(caller: int) -> list[str]:
        ids = []
        for number in range(4):
            while True:
                try:
                    view = views[(caller + number) % 2]
                    paid = world.pay(view, 2, key=f"{caller}-{number}", hold=number == 3)
                except Unavailable as error:
                    refused.append(error)
                else:
                    ids.append(paid.id)
                    break
        return ids

    storming = threading.Thread(target=storm)
    with contentions(world) as states:
        storming.start()
        assert holding.wait(30)
        try:
            answers = at_once(16, call)
        finally:
            calm.set()
            storming.join()
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    ids = {payment for answer in answers for payment in answer}  # type: ignore[union-attr]
    assert len(ids) == decided(world) == 16 * 4
    assert LOCKED in states
    for view in views:
        assert world.engine.remaining(view).per_day == (100 - 64) * USD
