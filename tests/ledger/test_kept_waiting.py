"""What one process has to wait for while another has it, until the other's transaction ends."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from engine.ledger.batch import Batch
from engine.policy.budgets import BudgetLimits
from tests.anvil_world import wait_until
from tests.ledger.approving import ABOVE_50, asked_for, grant, new_key, shown
from tests.world import USD, WORKSPACE, World

WAITS = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@contextmanager
def in_a_batch(
    world: World, *streams: str, act: Callable[[Batch], object] = lambda _: None
) -> Iterator[None]:
    """The block runs while a transaction that holds these streams is open, and has done this."""
    begun, end = threading.Event(), threading.Event()

    def command(batch: Batch) -> None:
        act(batch)
        begun.set()
        end.wait()

    done = world.engine.writer.submit(command, *streams)
    wait_until(lambda: begun.is_set() or done.done())
    try:
        yield
    finally:
        end.set()
        done.result()


def is_kept_waiting(
    world: World, pool: ThreadPoolExecutor, call: Callable[[], object]
) -> "Future[object]":
    """Begin this, and see the database have it wait for a lock."""
    asked = pool.submit(call)
    with psycopg.connect(str(world.store), autocommit=True) as looking:
        wait_until(lambda: asked.done() or looking.execute(WAITS).fetchone() is not None)
    assert not asked.done()
    return asked


def test_a_budget_is_set_when_what_was_begun_before_it_is_over(pair: tuple[World, World]) -> None:
    first, second = pair
    budget = BudgetLimits(per_day=5_000 * USD)
    with ThreadPoolExecutor(1) as pool:
        with in_a_batch(first, first.session().id):
            asked = is_kept_waiting(
                second,
                pool,
                lambda: second.engine.budgets.set(WORKSPACE, None, budget, by="test"),
            )
        asked.result()


def test_records_are_given_their_place_by_one_at_a_time(pair: tuple[World, World]) -> None:
    first, second = pair
    with ThreadPoolExecutor(1) as pool:
        with in_a_batch(first, act=Batch.sequencing):
            asked = is_kept_waiting(second, pool, second.engine.lead.sequence)
        assert asked.result() == first.engine.lead.sequence()


def test_a_grant_waits_for_who_changes_the_keys_of_its_workspace(
    pair: tuple[World, World],
) -> None:
    first, second = pair
    key, waiting = new_key(first), asked_for(first, first.session(ABOVE_50))
    with ThreadPoolExecutor(1) as pool:
        with in_a_batch(first, WORKSPACE):
            asked = is_kept_waiting(second, pool, lambda: grant(second, waiting, key))
        asked.result()
    assert shown(first, waiting.id).state == "granted"
