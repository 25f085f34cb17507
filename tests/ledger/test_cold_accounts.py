"""Sessions that are not in memory are read together, and each is checked as if it were alone."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from engine.errors import NotFound, TallystickError, Unavailable
from engine.ledger.ask import ask
from engine.ledger.payment import Payment
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.world import USD, World

STORES = ("sqlite",)

DAY = Limits(None, 100 * USD, None, None, None)


def pay(world: World, session_ids: Sequence[str]) -> list[Payment | TallystickError]:
    """A dollar from each, in one batch."""
    memo = {"description": None, "metadata_json": "{}"}
    asks = [ask(each, world.request(1), memo=memo, capture=True) for each in session_ids]
    return world.engine.ledger.authorise_many(asks).result()


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """What the writer asks the database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    writing = world.engine.database.writer.engine
    sa.event.listen(writing, "before_cursor_execute", note)
    yield seen
    sa.event.remove(writing, "before_cursor_execute", note)


def test_many_sessions_are_read_with_as_many_statements_as_two(world: World) -> None:
    first, *views = [world.session(DAY) for _ in range(15)]
    world.engine.writer._forget_all()
    pay(world, [first.id])  # after which the budgets of the workspace are in memory
    counts = []
    for some in (views[:2], views[2:]):
        with statements(world) as seen:
            answers = pay(world, [view.id for view in some])
        assert [answer.state for answer in answers if isinstance(answer, Payment)] == [
            "captured"
        ] * len(some)
        counts.append(sum(each.startswith("SELECT") for each in seen))
    assert counts[0] == counts[1]


@pytest.fixture
def family(world: World) -> list[SessionView]:
    """A session with holds, one on the chain with payments, and one beneath it."""
    plain, parent = world.session(DAY), world.session(DAY, mint_pkp=True)
    child = world.session(DAY, mint_pkp=True, parent_id=parent.id)
    world.pay(plain, 40, hold=True)
    world.pay(parent, 20, key="paid")
    world.pay(child, 30)
    return [plain, parent, child]


def test_what_is_read_together_is_what_each_is_alone(
    world: World, family: list[SessionView]
) -> None:
    alone = []
    for view in family:
        world.engine.writer._forget_all()
        alone.append(world.engine.remaining(view))
    world.engine.writer._forget_all()
    assert [each.per_day for each in alone] == [60 * USD, 50 * USD, 70 * USD]
    together = pay(world, [view.id for view in family])
    left = [each.decision["remaining"]["per_day"] for each in together if isinstance(each, Payment)]
    assert left == [59 * USD, 79 * USD, 69 * USD]


def test_a_damaged_session_and_one_that_there_is_not_stop_no_other(
    world: World, family: list[SessionView]
) -> None:
    plain, parent, child = family
    with contextlib.closing(sqlite3.connect(world.store)) as raw:
        raw.execute("UPDATE sessions SET restrictions_json = '7' WHERE id = ?", (plain.id,))
        raw.execute("UPDATE sessions SET grant_hash = zeroblob(32) WHERE id = ?", (child.id,))
        raw.commit()
    world.engine.writer._forget_all()
    damaged, absent, paid, denied = pay(world, [plain.id, "sess_x", parent.id, child.id])
    assert isinstance(damaged, Unavailable)
    assert damaged.code == "session_damaged"
    assert isinstance(absent, NotFound)
    assert isinstance(paid, Payment)
    assert paid.state == "captured"
    assert isinstance(denied, Payment)
    assert denied.decision["code"] == "PARAMETERS_MISMATCH"


def test_a_first_session_beneath_another_has_that_one_alone_read_again(world: World) -> None:
    """Whoever holds a token can open one: others' records are not read for it, however many."""
    root, other = world.session(DAY), world.session(DAY)
    child = world.session(DAY, parent_id=root.id, duration_ms=3_600_000)
    pay(world, [root.id, other.id, child.id])
    known = world.engine.ledger.memory.accounts.known
    kept = [known[each.id] for each in (root, other)]
    world.session(DAY, parent_id=child.id, duration_ms=1_800_000)
    with statements(world) as seen:
        pay(world, [root.id, other.id, child.id])
    assert all(known[each.id] is before for each, before in zip((root, other), kept, strict=True))
    assert known[child.id].delegates
    assert sum("FROM records" in each for each in seen) == 1
