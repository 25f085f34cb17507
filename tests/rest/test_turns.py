"""Who asks for a lot of what is done a little at a time keeps nobody else waiting."""

import asyncio
import threading

from api.rest.turns import Turns

PATIENCE_S = 60


def test_one_workspace_takes_one_place_however_much_it_asks_for() -> None:
    asyncio.run(one_place_each())


async def one_place_each() -> None:
    turns, release = Turns(2), threading.Event()
    begun: list[str] = []
    loop, both_places = asyncio.get_running_loop(), asyncio.Event()

    def work(name: str) -> str:
        begun.append(name)
        if len(begun) == 2:
            loop.call_soon_threadsafe(both_places.set)
        release.wait()
        return name

    def asked(workspace_id: str, name: str) -> "asyncio.Task[str]":
        return asyncio.create_task(turns.run(workspace_id, lambda: work(name)))

    many = [asked("greedy", f"greedy-{number}") for number in range(5)]
    other = asked("other", "other")
    try:
        await asyncio.wait_for(both_places.wait(), PATIENCE_S)
        assert sorted(begun) == ["greedy-0", "other"]
    finally:
        release.set()
    assert await other == "other"
    assert await asyncio.gather(*many) == [f"greedy-{number}" for number in range(5)]


def test_a_failure_is_heard_and_gives_the_place_back() -> None:
    asyncio.run(failing())


async def failing() -> None:
    turns = Turns(1)
    for _ in range(3):
        try:
            await turns.run("one", lambda: 1 // 0)
        except ZeroDivisionError:
            continue
        raise AssertionError("it was not heard")
    assert await turns.run("two", lambda: 2) == 2
