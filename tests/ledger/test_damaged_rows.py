"""What the tables say is held against the records: a row that was changed spends nothing."""

import contextlib
import sqlite3

import pytest

from engine.errors import Unavailable
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.world import USD, WORKSPACE, World

STORES = ("sqlite",)

DAY = Limits(None, 100 * USD, None, None, None)


def change(world: World, statement: str) -> None:
    """Change the database while the engine is stopped."""
    world.engine.close()
    with contextlib.closing(sqlite3.connect(world.store)) as raw:
        assert raw.execute(statement).rowcount > 0
        raw.commit()
    world.engine = world._open()


@pytest.fixture
def spent(world: World) -> SessionView:
    """A session with $60 captured and $30 held of its $100."""
    view = world.session(DAY)
    world.pay(view, 60, key="paid")
    world.pay(view, 30, hold=True)
    return view


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM decisions", "decision 1 is missing"),
        ("DELETE FROM decisions WHERE number = 1", "decision 1 is missing"),
        ("DELETE FROM decisions WHERE number = 3", "decision 3 is missing"),
        ("UPDATE decisions SET id = id + 1 WHERE number = 1", "other payments"),
        ("UPDATE decisions SET captured = 0 WHERE state = 'captured'", "other payments"),
        ("UPDATE decisions SET state = 'voided' WHERE state = 'held'", "other payments"),
        ("UPDATE decisions SET number = 2 WHERE number = 1", "other payments"),
        ("UPDATE sessions SET state = 'revoked'", "its row says revoked, its records say active"),
        ("UPDATE sessions SET state = 'zzz'", "zzz"),
        ("UPDATE sessions SET grant_json = '{}'", "not a grant"),
    ],
)
def test_rows_that_contradict_the_records_stop_the_session_and_no_other(
    world: World, spent: SessionView, statement: str, said: str
) -> None:
    only_this = "" if "sessions" not in statement else f" WHERE id = '{spent.id}'"
    other = world.session(DAY)
    change(world, statement + only_this)
    for _ in range(2):
        with pytest.raises(Unavailable, match=said) as refused:
            world.pay(spent, 1)
        assert refused.value.code == "session_damaged"
    assert world.engine.writer.fault is None
    assert world.pay(other, 1).state == "captured"


def test_a_revoked_session_does_not_come_back_by_its_row(world: World, spent: SessionView) -> None:
    world.engine.revoke_session(WORKSPACE, spent.id, by="somebody")
    change(world, f"UPDATE sessions SET state = 'active', ended_ms = NULL WHERE id = '{spent.id}'")
    with pytest.raises(Unavailable, match="its row says active, its records say revoked"):
        world.pay(spent, 1)


def test_what_the_records_say_is_what_is_left(world: World, spent: SessionView) -> None:
    world.reopen()
    assert world.engine.remaining(spent).per_day == 10 * USD
    assert world.pay(spent, 60, key="paid").replayed
    assert world.pay(spent, 11).decision["code"] == "LIMIT_EXCEEDED"
    assert world.pay(spent, 10).state == "captured"


def test_nothing_is_chained_to_a_last_record_that_is_none(world: World, spent: SessionView) -> None:
    """It was changed while the engine runs, which then reads the session again."""
    other = world.session(DAY)
    with contextlib.closing(sqlite3.connect(world.store)) as raw:
        changed = raw.execute(
            "UPDATE records SET body = substr(body, 2) WHERE stream = ?1 AND seq = "
            "(SELECT max(seq) FROM records WHERE stream = ?1)",
            (spent.id,),
        )
        assert changed.rowcount == 1
        raw.commit()
    world.engine.writer._forget_all()
    with pytest.raises(Unavailable, match=r"record 3 of sess_.* is damaged") as refused:
        world.pay(spent, 1)
    assert refused.value.code == "session_damaged"
    assert world.pay(other, 1).state == "captured"
