"""What an event loop asks for in one turn goes to the writer together, and nobody is kept by it."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from unittest.mock import Mock

import pytest

from engine.errors import Unavailable
from engine.ledger.payment import Payment
from tests.ledger.asking import ask
from tests.world import WORKSPACE, World

PATIENCE_S = 60
LONG_ENOUGH_S = 0.2
"""For the writer's thread to begin with what it was woken for."""


def in_another_thread(run: Callable[[], object]) -> None:
    """Run this on a thread and wait for it, on the event loop's thread or not."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it waits for an event loop that waits for it"


def test_the_writer_begins_once_the_loop_has_gone_through_what_it_had(world: World) -> None:
    view = world.session()
    asked: list[Future[Payment]] = []

    async def caller(number: int) -> Payment:
        asked.append(ask(world, view, 1, key=str(number)))
        time.sleep(LONG_ENOUGH_S / 5)  # noqa: ASYNC251 (as if there were much to do)
        assert not any(each.running() or each.done() for each in asked)
        return await asyncio.wrap_future(asked[number])

    async def callers() -> list[Payment]:
        return await asyncio.gather(*map(caller, range(5)))

    payments = asyncio.run(callers())
    assert [payment.state for payment in payments] == ["captured"] * 5
    assert len({payment.decided_ms for payment in payments}) == 1


@pytest.mark.parametrize("wait", ["result", "exception"])
def test_who_blocks_for_an_answer_on_the_loop_gets_it(world: World, wait: str) -> None:
    view = world.session()

    async def caller() -> "Future[Payment]":
        before, asked = ask(world, view, 1), ask(world, view, 1)
        getattr(asked, wait)(PATIENCE_S)
        assert before.done(), "it was asked before"
        return asked

    assert asyncio.run(caller()).result().state == "captured"


def test_another_threads_command_takes_along_what_was_asked_before(world: World) -> None:
    view = world.session()

    async def caller() -> None:
        asked = ask(world, view, 1)
        in_another_thread(lambda: futures.wait([ask(world, view, 2)]))  # not as `result` does
        assert asked.done()

    asyncio.run(caller())


def test_one_loop_does_not_wait_for_another(world: World) -> None:
    view = world.session()

    async def other() -> Payment:
        return await asyncio.wrap_future(ask(world, view, 2))

    async def caller() -> None:
        asked = ask(world, view, 1)
        in_another_thread(lambda: asyncio.run(other()))
        assert asked.done()
        assert (await asyncio.wrap_future(ask(world, view, 3))).state == "captured"

    asyncio.run(caller())


def test_where_the_loop_could_not_be_told_the_next_command_tells_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session()

    async def caller() -> Payment:
        with monkeypatch.context() as failing:
            failing.setattr(asyncio.get_running_loop(), "call_soon", Mock(side_effect=MemoryError))
            with pytest.raises(MemoryError):
                ask(world, view, 1)
        return await asyncio.wait_for(asyncio.wrap_future(ask(world, view, 2)), PATIENCE_S)

    assert asyncio.run(caller()).state == "captured"


def test_what_waits_for_the_loop_is_answered_when_the_engine_stops(world: World) -> None:
    view = world.session()

    async def caller() -> "tuple[Future[Payment], Future[Payment]]":
        asked = ask(world, view, 1)
        in_another_thread(world.engine.writer.stop)
        return asked, ask(world, view, 1)

    asked, late = asyncio.run(caller())
    assert asked.result(0).state == "captured"
    with pytest.raises(Unavailable, match="stopping"):
        late.result(0)
    world.reopen()
    assert world.engine.payments.get(WORKSPACE, asked.result().id).state == "captured"


def test_a_loop_that_ends_at_once_leaves_its_commands_to_whoever_comes_next(world: World) -> None:
    view = world.session()
    asked: list[Future[Payment]] = []

    async def caller() -> None:
        asked.append(ask(world, view, 1))
        asyncio.get_running_loop().stop()

    for _ in range(2):
        loop = asyncio.new_event_loop()
        task = loop.create_task(caller())
        loop.run_forever()
        loop.close()
        assert task.done()
    assert not any(each.running() or each.done() for each in asked)
    world.engine.remaining(view)
    assert [each.result(0).state for each in asked] == ["captured"] * 2
