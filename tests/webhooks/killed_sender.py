"""Pays and delivers until it is killed; run by kill_senders.py.

For every line of its input, a data directory, how far its clock is ahead (milliseconds), what to do
and the last place that was heard (-1: none), it forks a process, prints `pid N`, and after that
process's death `dead` and its status. One that is to `pay` prints `paid ID` after each payment that
was acknowledged, until it is killed. One that is to `drain` delivers, lets a day pass and delivers
again, until nothing waits. Both print `heard PLACE ID` for every event that a listener is told.
Forking saves importing the engine for each kill.
"""

import os
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from engine.chain.embedded import EmbeddedChain  # noqa: F401 (what an engine needs, once for all)
from engine.clock import system_clock
from engine.db.tables import table
from engine.db.webhooks import WebhookDelivery
from engine.errors import TallystickError
from tests.world import WORKSPACE, World

DAY_MS = 25 * 3_600_000
PAYERS = 2
PAUSE_S = 0.01
"""The receiver and this share two cores; what is paid has to be delivered as well."""


def say(line: str) -> None:
    """Write a line in one system call, so that a kill never leaves half of one."""
    os.write(1, f"{line}\n".encode())


class Clock:
    """The system's clock, and some time more."""

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def __call__(self) -> int:
        return system_clock() + self.ahead_ms


def listen(world: World, place: int) -> int:
    """Say what there is to be heard from a place on; returns the place after it."""
    while True:
        events, after = world.engine.feed.next(WORKSPACE, place)
        for event in events:
            say(f"heard {event.place} {event.id}")
        if after == place:
            return place
        place = after


def pay(world: World, place: int) -> None:
    """Pay without an end, while the engine delivers beside it."""
    world.engine.start()

    def listener() -> None:
        heard = place
        while True:
            heard = listen(world, heard)
            time.sleep(PAUSE_S)

    def payer() -> None:
        view = world.session()
        while True:
            say(f"paid {world.pay(view, 1).id}")
            time.sleep(PAUSE_S)

    threads = [threading.Thread(target=payer) for _ in range(PAYERS)]
    threads.append(threading.Thread(target=listener))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def drain(world: World, clock: Clock, place: int) -> None:
    """Deliver until nothing waits."""
    waiting = sa.select(sa.func.count()).select_from(table(WebhookDelivery))
    while True:
        world.engine.lead.sequence()
        world.engine.delivery.tick()
        with world.engine.database.reading() as connection:
            if connection.execute(waiting).scalar_one() == 0:
                break
        clock.ahead_ms += DAY_MS
    listen(world, place)
    world.engine.close()


def run(directory: Path, ahead_ms: int, what: str, last: int) -> None:
    """What a forked process does."""
    clock = Clock(ahead_ms)
    world = World(directory, clock, webhook_networks="127.0.0.0/8")
    place = world.engine.feed.begin(last) if last >= 0 else 0
    if what == "drain":
        drain(world, clock, place)
    else:
        pay(world, place)


def main() -> None:
    """Serve the input until it ends."""
    for line in sys.stdin:
        directory, ahead_ms, what, last = line.split()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                run(Path(directory), int(ahead_ms), what, int(last))
                status = 0
            except TallystickError as error:
                say(f"failed {error.message}")
            finally:
                os._exit(status)
        say(f"pid {pid}")
        _, ended = os.waitpid(pid, 0)
        say(f"dead {ended}")


if __name__ == "__main__":
    main()
