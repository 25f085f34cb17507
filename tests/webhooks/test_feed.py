"""Events that are listened to: each once, in the order of the log, from any place on again."""

import contextlib
import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from engine.clock import ManualClock
from engine.errors import InvalidInput, RateLimited
from engine.webhooks.damage import Said
from engine.webhooks.feed import (
    EVENTS_MAX,
    LISTENERS_MAX,
    LISTENERS_OF_KEY_MAX,
    LISTENERS_OF_WORKSPACE_MAX,
    POLL_MS,
    Feed,
)
from engine.webhooks.outbox import Event, events_from
from tests.world import WORKSPACE, World


def feed_of(world: World) -> tuple[Feed, ManualClock]:
    stopwatch = ManualClock(0)
    return Feed(world.engine.database, stopwatch), stopwatch


def heard(
    feed: Feed, stopwatch: ManualClock, place: int, workspace: str = WORKSPACE
) -> list[Event]:
    """Everything from a place on."""
    stopwatch.advance(POLL_MS)
    found = []
    while True:
        events, after = feed.next(workspace, place)
        found += events
        if after == place:
            return found
        place = after


def test_whoever_comes_back_from_any_place_hears_the_rest(world: World) -> None:
    feed, stopwatch = feed_of(world)
    session = world.session()
    for _ in range(EVENTS_MAX + 3):
        world.pay(session, 1)
    world.engine.lead.sequence()
    with sqlite3.connect(world.store) as raw:
        told = [
            f"evt_{s}_{n}" for s, n in raw.execute("SELECT stream, seq FROM outbox ORDER BY id")
        ]
    everything = heard(feed, stopwatch, 0)
    assert [event.id for event in everything] == told
    assert len(told) > EVENTS_MAX
    for at in (0, 1, len(told) // 2, len(told) - 1):
        place = feed.begin(everything[at].place)
        assert [event.id for event in heard(feed, stopwatch, place)] == told[at + 1 :]


def test_a_listener_hears_what_comes_and_nothing_of_other_workspaces(world: World) -> None:
    feed, stopwatch = feed_of(world)
    world.engine.access.create_workspace("other", "Other")
    here = feed.begin(None)
    mine, others = world.session(), world.session(workspace="other")
    world.pay(mine, 1)
    world.pay(others, 1)
    world.engine.lead.sequence()
    streams = {event.stream for event in heard(feed, stopwatch, here)}
    assert streams == {mine.id}
    assert {event.stream for event in heard(feed, stopwatch, here, "other")} == {others.id}


def test_the_log_is_looked_at_now_and_then_for_all_together(world: World) -> None:
    feed, stopwatch = feed_of(world)
    here = feed.begin(None)
    assert feed.next(WORKSPACE, here) == ([], here)
    world.pay(world.session(), 1)
    world.engine.lead.sequence()
    assert feed.next(WORKSPACE, here) == ([], here)
    stopwatch.advance(POLL_MS)
    events, after = feed.next(WORKSPACE, here, ("payment.confirmed", "payment.created"))
    assert [event.name for event in events] == ["payment.confirmed"]
    assert after > here


@pytest.mark.parametrize("wanted", [("*",), ("payment.confirmed",)])
def test_a_look_costs_no_more_the_more_was_told(world: World, wanted: tuple[str, ...]) -> None:
    with world.engine.database.reading() as connection:
        steps = []

        def explained(query: sa.Select[Any]) -> Any:
            text = query.compile(connection, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
            steps.extend(row[3] for row in plan)
            return connection.execute(query)

        events_from(explained, WORKSPACE, wanted, 0, 8, Said())
    looks = [step for step in steps if "outbox" in step]
    assert looks == ["SEARCH outbox USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


def test_a_place_that_the_log_does_not_have_is_refused(world: World) -> None:
    feed, _ = feed_of(world)
    end = feed.begin(None)
    assert feed.begin(end - 1) == end
    with pytest.raises(InvalidInput, match="Last-Event-ID"):
        feed.begin(end)


def test_only_so_many_listen_and_no_workspace_takes_all_places(world: World) -> None:
    feed, _ = feed_of(world)
    with contextlib.ExitStack() as seats:
        for number in range(LISTENERS_OF_WORKSPACE_MAX):  # as by a key that is rotated
            seats.enter_context(feed.seat(f"key {number // LISTENERS_OF_KEY_MAX}", "one"))
        for key in ("key 0", "another"):
            with pytest.raises(RateLimited, match=r"(4|32) listeners of this (key|workspace)"):
                seats.enter_context(feed.seat(key, "one"))
        for number in range(LISTENERS_MAX - LISTENERS_OF_WORKSPACE_MAX):
            seats.enter_context(feed.seat(f"own {number}", f"workspace {number}"))
        with pytest.raises(RateLimited, match="64 listeners at a time"):
            seats.enter_context(feed.seat("any", "of any"))
    with feed.seat("key 0", "one"):  # who has left makes room
        pass
