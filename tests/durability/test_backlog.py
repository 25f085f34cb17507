"""What a killed process left to do is done by the next, once (see `backlog`, with figures)."""

import time
from pathlib import Path

from engine.ledger.sweep import SWEPT_MAX
from engine.sessions.expiry import ROUNDS_MAX
from tests.durability.backlog import HELD, SESSIONS, left_by_a_kill
from tests.durability.pools import SharedRecords
from tests.ledger.oracle import query, read_records
from tests.world import World

ENDED_BY_A_TICK = ROUNDS_MAX * SWEPT_MAX
HOLDS = SWEPT_MAX + ENDED_BY_A_TICK + 1
PATIENCE_S = 60


def test_holds_that_ran_out_while_nothing_ran_are_ended_in_slices_and_once(tmp_path: Path) -> None:
    file = left_by_a_kill(tmp_path / "data", HOLDS)
    world = World(tmp_path / "data")
    ready = world.engine.ready()
    assert ready["ready"]
    assert ready["records"] >= HOLDS + SESSIONS
    assert query(file, HELD) == [(ENDED_BY_A_TICK + 1,)]  # nobody waits for the others
    assert world.engine.tick(anchor=True)
    assert query(file, HELD) == [(1,)]
    assert not world.engine.tick()
    assert query(file, HELD) == [(0,)]
    records = SharedRecords({}, one_writer=True)
    records.feed(read_records(file))
    assert [body["kind"] for body in records.ended.values()] == ["payment.expired"] * HOLDS
    batches = query(file, "SELECT length(leaf_hashes) / 32 FROM log_batches")
    assert max(count for (count,) in batches) <= 512
    for session, budget in records.budgets.items():
        left = world.engine.ledger.remaining(session).result()
        assert left.per_day == budget.limits["per_day"]
    world.engine.anchor()
    assert world.engine.ready()["anchored"] == len(records.leaves)
    world.engine.close()


def test_a_reconciliation_ends_all_of_them_first(tmp_path: Path) -> None:
    """What it compares with the chain would not be what the engine makes of it otherwise."""
    file = left_by_a_kill(tmp_path / "data", HOLDS)
    world = World(tmp_path / "data")
    world.engine.reconciler.run()
    assert query(file, HELD) == [(0,)]
    world.engine.close()


def test_a_tick_that_ended_all_of_them_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """A server would never rest otherwise where a few run out all the time."""
    left_by_a_kill(tmp_path / "data", SWEPT_MAX + 1)
    world = World(tmp_path / "data")  # which ends a slice of them
    assert not world.engine.lead.tick(rounds=1)
    world.engine.close()


def test_a_server_goes_on_until_all_of_them_are_ended(tmp_path: Path) -> None:
    """However long it would wait between two looks at its chain."""
    file = left_by_a_kill(tmp_path / "data", HOLDS)
    world = World(tmp_path / "data", poll_interval_ms=10 * PATIENCE_S * 1000)
    world.engine.start()
    deadline = time.monotonic() + PATIENCE_S
    while query(file, HELD) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    world.engine.close()
