"""A row that is damaged keeps nobody else's events waiting."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from engine.errors import Unavailable
from engine.webhooks import delivery
from engine.webhooks.damage import AGAIN_MS
from engine.webhooks.feed import EVENTS_MAX
from engine.webhooks.lane import WIDTH
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import deliver, endpoint, pass_time, rows, shown, waiting
from tests.world import WORKSPACE, World

OTHER = "other"
NO_TEXT = "CAST(x'ff' AS TEXT)"
DAMAGED_EVENTS = {
    "payload_json": ("'{'", "'zzz'", "'[]'", """'{"a": NaN}'""", """'"\\ud800"'""", NO_TEXT),
    "created_ms": ("'zzz'", "9e15", "9000000000000000"),
    "seq": ("'zzz'", "-1"),
    "event": ("x'00'", NO_TEXT),
    "stream": ("x'00'", NO_TEXT),
}
DAMAGED_ENDPOINTS = {
    "events_json": ("'zzz'", "'[1]'", "'[[]]'", """'{"*": 1}'""", NO_TEXT),
    "next_place": ("'zzz'", "0.5"),
    "failures": ("'zzz'", "9223372036854775807"),
    "hold_until_ms": ("'zzz'",),
    "url": (NO_TEXT, "x'00'"),
    "sealed": ("'zzz'", "1000000000000000"),
    "id": (NO_TEXT, "x'00'"),
}


def kinds(damage: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(column, value) for column, values in damage.items() for value in values]


def execute(world: World, statement: str, *values: object) -> None:
    """Change rows while the engine runs."""
    with contextlib.closing(sqlite3.connect(world.store, timeout=9)) as raw:
        assert raw.execute(statement, values).rowcount > 0
        raw.commit()


@contextlib.contextmanager
def damaged(world: World, table: str, column: str, value: str, where: str) -> Iterator[None]:
    """One row of a table is damaged, for as long as the block lasts."""
    [(rowid, before)] = rows(world, f"SELECT rowid, {column} FROM {table} WHERE {where}")
    execute(world, f"UPDATE {table} SET {column} = {value} WHERE rowid = ?", rowid)
    yield
    execute(world, f"UPDATE {table} SET {column} = ? WHERE rowid = ?", before, rowid)


@pytest.fixture
def others(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> str:
    """The session of another workspace, which has a webhook, and so has `WORKSPACE`."""
    monkeypatch.setattr(delivery, "POLL_S", 0.01)
    world.engine.access.create_workspace(OTHER, "Another tenant")
    endpoint(world, receiver, path="/mine")
    endpoint(world, receiver, path="/others", workspace=OTHER)
    return world.session(workspace=OTHER).id


@contextlib.contextmanager
def delivering(world: World) -> Iterator[None]:
    """The thread that delivers runs as it does in a server."""
    stopping = threading.Event()
    threads = world.engine.delivery.start(lambda: True, stopping=stopping)
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def told(world: World, workspace: str) -> set[str]:
    """The events that there are."""
    found = rows(world, "SELECT stream, seq FROM outbox WHERE workspace_id = ?", workspace)
    return {f"evt_{stream}_{seq}" for stream, seq in found}


def heard(receiver: Receiver, path: str) -> list[str]:
    return [each.event["id"] for each in receiver.received if each.path == f"/hooks{path}"]


def written_down(world: World, workspace: str) -> int:
    query = "SELECT count(*) FROM webhook_attempts WHERE workspace_id = ?"
    [(count,)] = rows(world, query, workspace)
    return int(count)


def all_of_others_arrive(world: World, receiver: Receiver, session_id: str) -> None:
    """More events than one look finds are delivered, and written down, and nothing flies on."""
    view = world.engine.sessions.get(OTHER, session_id)
    for _ in range(2 * WIDTH):
        world.pay(view, 1)
    world.engine.lead.sequence()
    wanted = told(world, OTHER)
    until = time.monotonic() + 20
    while time.monotonic() < until and (
        written_down(world, OTHER) < len(wanted) or world.engine.delivery._flying
    ):
        time.sleep(0.02)
    assert sorted(heard(receiver, "/others")) == sorted(wanted)
    assert written_down(world, OTHER) == len(wanted)
    assert not world.engine.delivery._flying


@pytest.mark.parametrize(("column", "value"), kinds(DAMAGED_EVENTS))
def test_a_damaged_event_is_left_out_and_keeps_nothing_behind_it_waiting(
    world: World, receiver: Receiver, others: str, column: str, value: str
) -> None:
    mine = world.session()
    for _ in range(2):
        world.pay(mine, 1)
    world.engine.lead.sequence()
    everything = told(world, WORKSPACE)
    [(record_id, seq)] = rows(
        world, "SELECT min(id), seq FROM outbox WHERE workspace_id = ?", WORKSPACE
    )
    place = world.engine.feed.begin(None, 0)
    with capture_logs() as logs, damaged(world, "outbox", column, value, f"id = {record_id}"):
        with delivering(world):
            all_of_others_arrive(world, receiver, others)
        found, _ = world.engine.feed.next(WORKSPACE, place)
        assert len(found) == len(everything) - 1 < EVENTS_MAX
    lost = f"evt_{mine.id}_{seq}"
    assert sorted(heard(receiver, "/mine")) == sorted(everything - {lost})
    said = [each for each in logs if each["event"] == "event_damaged"]
    assert [(each["record"], each["workspace"]) for each in said] == [(record_id, WORKSPACE)] * 2
    [made] = world.engine.webhooks.list(WORKSPACE)
    assert (made.failures, made.active, waiting(world, made)) == (0, True, 0)

    world.engine.webhooks.replay(WORKSPACE, made.id, 0, by="test")
    deliver(world)
    assert lost in heard(receiver, "/mine"), "once it is mended"


@pytest.mark.parametrize(("column", "value"), kinds(DAMAGED_ENDPOINTS))
def test_a_damaged_webhook_is_left_out_until_it_is_mended(
    world: World, receiver: Receiver, others: str, column: str, value: str
) -> None:
    [made] = world.engine.webhooks.list(WORKSPACE)
    mine = world.session()
    world.engine.lead.sequence()
    where = f"workspace_id = '{WORKSPACE}'"
    with capture_logs() as logs, damaged(world, "webhook_endpoints", column, value, where):
        with delivering(world):
            all_of_others_arrive(world, receiver, others)
            pass_time(world, AGAIN_MS)  # it is looked at again
            all_of_others_arrive(world, receiver, others)
        assert heard(receiver, "/mine") == []
        with contextlib.suppress(Exception):
            world.engine.webhooks.change(WORKSPACE, made.id, description="", by="test")
        assert world.pay(mine, 1).state == "captured"
    said = [each for each in logs if each["event"] == "webhook_damaged"]
    assert len(said) == 1
    assert column == "id" or said[0]["webhook"] == made.id

    pass_time(world, AGAIN_MS)
    deliver(world)
    assert sorted(heard(receiver, "/mine")) == sorted(told(world, WORKSPACE))


def test_a_webhook_that_is_damaged_while_something_flies_holds_up_no_other(
    world: World, receiver: Receiver, others: str
) -> None:
    [made] = world.engine.webhooks.list(WORKSPACE)
    hanging, released = threading.Semaphore(0), threading.Event()

    def answer(each: object) -> int:
        hanging.release()
        assert released.wait(20)
        return 200

    receiver.answer = answer
    view = world.engine.sessions.get(OTHER, others)
    for _ in range(WIDTH - 1):
        world.pay(view, 1)
        world.session()
    world.engine.lead.sequence()
    where = f"workspace_id = '{WORKSPACE}'"
    with delivering(world):
        for _ in range(2 * WIDTH - 1):
            assert hanging.acquire(timeout=10)
        with damaged(world, "webhook_endpoints", "url", NO_TEXT, where):
            released.set()
            all_of_others_arrive(world, receiver, others)
        assert world.engine.writer.fault is None
    assert written_down(world, WORKSPACE) == 0
    pass_time(world, AGAIN_MS)
    deliver(world)
    assert set(heard(receiver, "/mine")) == told(world, WORKSPACE)
    assert written_down(world, WORKSPACE) == len(told(world, WORKSPACE))
    assert shown(world, made).failures == 0


def test_what_cannot_be_written_down_for_one_is_for_the_others(
    world: World, receiver: Receiver, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [made] = world.engine.webhooks.list(WORKSPACE)
    world.session()
    deliver(world)
    execute(world, "UPDATE webhook_attempts SET number = 'zzz' WHERE endpoint_id = ?", made.id)
    world.session()
    with capture_logs() as logs, delivering(world):
        all_of_others_arrive(world, receiver, others)
    assert len(set(heard(receiver, "/mine"))) == len(heard(receiver, "/mine")) == 2
    pass_time(world, AGAIN_MS)
    deliver(world)
    assert len(heard(receiver, "/mine")) == 3, "at least once, and not again and again"
    said = [each for each in logs if each["event"] == "webhook_damaged"]
    assert [each["webhook"] for each in said] == [made.id]
    execute(world, "UPDATE webhook_attempts SET number = 1 WHERE endpoint_id = ?", made.id)
    pass_time(world, AGAIN_MS)
    deliver(world)
    assert written_down(world, WORKSPACE) == 2


def test_a_damaged_event_that_waits_keeps_no_other_that_waits(
    world: World, receiver: Receiver, others: str
) -> None:
    receiver.answer = lambda _: 500
    for _ in range(WIDTH):
        world.session()
    deliver(world)
    [made] = world.engine.webhooks.list(WORKSPACE)
    query = "SELECT record_id FROM webhook_deliveries ORDER BY next_ms, record_id"
    first, second, *_ = [record_id for (record_id,) in rows(world, query)]
    receiver.answer = lambda _: 200
    pass_time(world, 60_000)
    mended = heard(receiver, "/mine")
    receiver.received.clear()
    attempts = f"record_id = {second}"
    with (
        damaged(world, "outbox", "payload_json", "'{'", f"id = {first}"),
        damaged(world, "webhook_deliveries", "attempts", "'zzz'", attempts),
    ):
        deliver(world)
        pass_time(world, 60_000)
        deliver(world)
        lost = {
            f"evt_{s}_{n}"
            for s, n in rows(
                world, f"SELECT stream, seq FROM outbox WHERE id IN ({first}, {second})"
            )
        }
        assert set(heard(receiver, "/mine")) == set(mended) - lost
        assert waiting(world, made) == len(lost & set(mended))
    deliver(world)
    assert (set(heard(receiver, "/mine")), waiting(world, made)) == (set(mended), 0)


def test_a_database_that_fails_is_no_damage(
    world: World, receiver: Receiver, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way is written down nonetheless, and nothing is left out."""
    world.session()
    world.engine.lead.sequence()
    deliver_from = world.engine.delivery
    deliver_from._begin()
    failing = sqlite3.OperationalError("disk I/O error")

    def fails(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, failing)

    with monkeypatch.context() as broken:
        broken.setattr(delivery, "moment", fails)
        with delivering(world):
            until = time.monotonic() + 10
            while deliver_from._flying and time.monotonic() < until:
                time.sleep(0.02)
        with pytest.raises(sa.exc.OperationalError):
            deliver(world)
    assert not deliver_from._flying
    assert written_down(world, WORKSPACE) == 1
    assert world.engine.delivery._left_out.at(world.clock()) == []


@pytest.mark.parametrize("database", [True, False])
def test_what_cannot_be_written_down_is_sent_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, database: bool
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    failure = sa.exc.OperationalError("", {}, full) if database else KeyError("its own")

    def fails(*_: object, **__: object) -> None:
        raise failure

    made = endpoint(world, receiver, "payment.confirmed")
    world.pay(world.session(), 1)
    with monkeypatch.context() as broken:
        broken.setattr(delivery, "keep_attempt", fails)
        with pytest.raises(Unavailable) if database else contextlib.nullcontext():
            deliver(world)
    if not database:  # something of this endpoint is damaged: it is left alone for a while
        deliver(world)
        assert len(receiver.received) == 1
        pass_time(world, AGAIN_MS)
    deliver(world)
    assert len(receiver.received) == 2
    assert len(set(receiver.ids())) == 1
    assert shown(world, made).failures == 0
    attempts, _ = world.engine.webhooks.attempts(WORKSPACE, made.id, offset=0, limit=5)
    assert len(attempts) == 1


def test_a_few_workspaces_whose_receivers_hang_leave_a_place_for_another(
    world: World, receiver: Receiver, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FLYING_MAX", 8)
    monkeypatch.setattr(delivery, "FLYING_OF_WORKSPACE_MAX", 4)
    heard_there, released = threading.Event(), threading.Event()

    def answer(each: object) -> int:
        if getattr(each, "path", "") == "/hooks/others":
            heard_there.set()
            return 200
        assert released.wait(20)
        return 200

    receiver.answer = answer
    deliver(world)
    heard_there.clear()
    busy = [f"busy-{number}" for number in range(3)]
    for name in busy:
        world.engine.access.create_workspace(name, name)
        endpoint(world, receiver, path=f"/{name}", workspace=name)
        for _ in range(8):
            world.session(workspace=name)
    world.engine.lead.sequence()
    with delivering(world):
        until = time.monotonic() + 10
        while len(world.engine.delivery._flying) < len(busy) and time.monotonic() < until:
            time.sleep(0.02)
        world.pay(world.engine.sessions.get(OTHER, others), 1)
        world.engine.lead.sequence()
        in_time = heard_there.wait(5)
        released.set()
    assert in_time
    flying = world.engine.delivery._flying
    flying.clear()
    flying.update({WORKSPACE: 3, **dict.fromkeys(busy, 2)})
    active = [
        each for name in (WORKSPACE, OTHER, *busy) for each in world.engine.webhooks.list(name)
    ]
    for _ in active:
        [first, *_, last] = world.engine.delivery._in_turn(active)
        assert (first.workspace_id, last.workspace_id) == (OTHER, WORKSPACE)
