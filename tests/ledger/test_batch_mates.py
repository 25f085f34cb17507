"""What one command finds or leaves in the database is its own failure, and no one else's."""

from typing import Any

import pytest

from engine.errors import Unavailable
from engine.ledger.batch import Batch
from tests.ledger.approving import ABOVE_50, asked_for, first_key
from tests.ledger.asking import ask, one_batch
from tests.ledger.oracle import alter
from tests.world import USD, WORKSPACE, World


def test_a_row_that_is_in_the_way_of_one_payment_is_in_nobody_elses(fresh: World) -> None:
    """An approval stands where the next of the session is to be written."""
    odd, other = fresh.session(ABOVE_50), fresh.session()
    waiting = asked_for(fresh, odd)
    fresh.engine.approvals.deny(WORKSPACE, waiting.id, by=first_key(fresh))
    assert alter(fresh.store, "UPDATE approvals SET number = 4 WHERE session_id = ?", odd.id) == 1
    with one_batch(fresh.engine.writer):
        asked = [ask(fresh, each, 60 * USD) for each in (other, odd, other)]
    with pytest.raises(Unavailable, match="could not be made durable"):
        asked[1].result()
    assert [asked[place].result().state for place in (0, 2)] == ["captured"] * 2
    assert fresh.engine.writer.fault is None


def test_a_database_that_fails_is_not_asked_again_for_each(fresh: World) -> None:
    """Of a statement that it does not take, nobody knows whose fault it is."""
    seen: list[str] = []

    def fail(batch: Batch) -> Any:
        seen.append("fails")
        return batch._connection.exec_driver_sql("SELECT nothing FROM nowhere")

    writer = fresh.engine.writer
    with one_batch(writer):
        waiting = [writer.submit(fail), writer.submit(lambda _: seen.append("another"))]
    for each in waiting:
        with pytest.raises(Unavailable):
            each.result()
    assert seen == ["fails"]
