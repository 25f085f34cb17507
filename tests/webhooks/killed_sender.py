"""Pays and delivers until it is killed; run by kill_senders.py.

For every line of its input, a data directory, how far its clock is ahead (milliseconds), what to do
and the last place that was heard (-1: none), it forks a process, prints `pid N`, and after that
process's death `dead` and its status. One that is to `work` prints, until it is killed, `paid ID`
after each payment that was acknowledged, and `made ID` and `revoked ID` of sessions; `under way`
once there was one of each, and a payment that a limit over time denied. One that is to `drain`
delivers, lets a day pass and delivers again, until nothing waits. Both print `heard PLACE ID` for
every event that a listener is told. Forking saves importing the engine for each kill.
"""

import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import sqlalchemy as sa

from engine.chain.embedded import EmbeddedChain  # noqa: F401 (what an engine needs, once for all)
from engine.clock import system_clock
from engine.db.tables import Session, table
from engine.db.webhooks import WebhookDelivery
from engine.errors import TallystickError
from engine.sessions.session import SessionView
from tests.webhooks.transitions import HOUR_MS, LIMITED, PAYMENTS_PER_HOUR
from tests.world import WORKSPACE, World

DAY_MS = 25 * HOUR_MS
PAYERS = 2
PAUSE_S = 0.01
"""The receiver and this share two cores; what is paid has to be delivered as well."""
SESSION_PAUSE_S = 0.1
SHORT_MS = HOUR_MS // 2
"""So long a session lives that is not revoked before: until the clock goes on by an hour."""
LONG_MS = 168 * HOUR_MS
BRIEF_MS = 1
"""Until the next second begins: sessions end with one."""

_sessions = table(Session)


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


def work(world: World, place: int) -> None:
    """Pay, make and end sessions and reach limits without an end, while the engine delivers."""
    limited = limited_session(world)
    world.engine.start()
    under_way = threading.Barrier(PAYERS + 2, action=lambda: say("under way"))

    def listener() -> None:
        heard = place
        while True:
            heard = listen(world, heard)
            time.sleep(PAUSE_S)

    def payer() -> None:
        view = world.session()
        say(f"paid {world.pay(view, 1).id}")
        under_way.wait()
        while True:
            say(f"paid {world.pay(view, 1).id}")
            time.sleep(PAUSE_S)

    def keeper() -> None:
        brief = deque([make_and_revoke(world)])
        under_way.wait()
        while True:
            brief.append(make_and_revoke(world))
            time.sleep(SESSION_PAUSE_S)
            while brief and brief[0].expires_ms <= world.clock():
                revoke(world, brief.popleft().id)

    def spender() -> None:
        for _ in range(PAYMENTS_PER_HOUR + 1):
            world.pay(limited, 1)
        under_way.wait()
        while True:
            world.pay(limited, 1)
            time.sleep(SESSION_PAUSE_S)

    tasks = [*[payer] * PAYERS, listener, keeper, spender]
    for ended in as_completed(map(ThreadPoolExecutor(len(tasks)).submit, tasks)):
        ended.result()  # none ends but by an error, which ends the process


def limited_session(world: World) -> SessionView:
    """The session that reaches its limit, from one process to the next; another one in time."""
    wanted = sa.select(_sessions.c.id).where(
        _sessions.c.label == LIMITED, _sessions.c.expires_ms > world.clock() + 2 * HOUR_MS
    )
    with world.engine.database.reading() as connection:
        found = connection.execute(wanted).scalars().first()
    if found is not None:
        return world.engine.sessions.get(WORKSPACE, found)
    only = (f"at most {PAYMENTS_PER_HOUR} payments per hour",)
    return world.session(label=LIMITED, conditions=only, duration_ms=LONG_MS)


def make_and_revoke(world: World) -> SessionView:
    """A session that is left to the clock and one that is ended; returns a third one, which is to
    be revoked while it expires."""
    made = [world.session(duration_ms=each) for each in (SHORT_MS, SHORT_MS, BRIEF_MS)]
    for view in made:
        say(f"made {view.id}")
    revoke(world, made[1].id)
    return made[2]


def revoke(world: World, session_id: str) -> None:
    world.engine.revoke_session(WORKSPACE, session_id, by="test")
    say(f"revoked {session_id}")


def drain(world: World, clock: Clock, place: int) -> None:
    """Deliver until nothing waits."""
    waiting = sa.select(sa.func.count()).select_from(table(WebhookDelivery))
    while True:
        world.engine.lead.tick()
        world.engine.lead.sequence()  # what expired in that tick has its place, too
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
        work(world, place)


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
