"""Ways to ask the ledger: without waiting, from many threads at once, and as one batch."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from engine.ledger.payment import Payment
from engine.ledger.writer import Writer
from engine.sessions.session import SessionView
from tests.world import World

Answer = TypeVar("Answer")

START_MS = 1_800_000_000_001
"""Where manual clocks start: a millisecond past a second, so that rounding would be seen."""


def ask(
    world: World,
    view: SessionView,
    micro_usd: int,
    *,
    key: str | None = None,
    hold: bool = False,
    description: str | None = None,
    **changes: Any,
) -> "Future[Payment]":
    """Ask for a payment and do not wait for the answer."""
    return world.engine.ledger.authorise(
        view.id,
        world.request(amount=micro_usd, **changes),
        memo={"description": description, "metadata_json": "{}"},
        key=key,
        capture=not hold,
    )


def at_once(callers: int, call: Callable[[int], Answer]) -> list[Answer | Exception]:
    """Run `call` with 0, 1, 2 … on a thread each, all let go together; answers and errors."""
    barrier = threading.Barrier(callers)
    answers: list[Any] = [None] * callers

    def run(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = call(number)
        except Exception as error:  # noqa: BLE001 (it is the answer)
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@contextmanager
def one_batch(writer: Writer) -> Iterator[None]:
    """What is submitted inside waits for the end of the block, and then runs as one batch."""
    occupied, release = threading.Event(), threading.Event()

    def occupy(_batch: object) -> None:
        occupied.set()
        release.wait()

    gate = writer.submit(occupy)
    occupied.wait()
    try:
        yield
    finally:
        release.set()
    gate.result()
