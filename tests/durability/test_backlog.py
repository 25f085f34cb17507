"""What a killed process left to do is done by the next, once (see `backlog`, with figures)."""

from pathlib import Path

from engine.ledger.ledger import SWEEP_HOLDS_MAX
from tests.durability.backlog import HELD, SESSIONS, left_by_a_kill
from tests.durability.pools import SharedRecords
from tests.ledger.oracle import query, read_records
from tests.world import World

HOLDS = 3 * SWEEP_HOLDS_MAX


def test_holds_that_ran_out_while_nothing_ran_are_ended_in_slices_and_once(tmp_path: Path) -> None:
    file = left_by_a_kill(tmp_path / "data", HOLDS)
    world = World(tmp_path / "data")
    assert world.engine.ready()["records"] >= HOLDS + SESSIONS
    world.engine.tick(anchor=True)
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
