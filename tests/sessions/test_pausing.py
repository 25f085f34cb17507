"""Pausing: a session stops at once, with all beneath it, and goes on only as far as it may."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.audit.replay import Replay, ReplayError
from engine.clock import ManualClock
from engine.errors import Conflict, NotFound
from engine.sessions.lifecycle import Wanted
from engine.sessions.session import SessionView
from tests.ledger.approving import replayed
from tests.sessions.test_delegation import child_of
from tests.world import WORKSPACE, World, records_of

HOUR_MS = 3_600_000
BY = "key_of_a_test"


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn."""
    opened = World(tmp_path / "data", ManualClock(1_800_000_000_000))
    yield opened
    opened.engine.close()


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def code(world: World, view: SessionView) -> str:
    found: str = world.pay(view, 1).decision["code"]
    return found


def pause(world: World, view: SessionView) -> SessionView:
    return world.engine.sessions.pause(WORKSPACE, view.id, by=BY)


def resume(world: World, view: SessionView) -> SessionView:
    return world.engine.sessions.resume(WORKSPACE, view.id, by=BY)


@pytest.mark.parametrize("mint_pkp", [False, True])
def test_a_paused_session_pays_nothing_until_it_goes_on_and_its_records_replay(
    world: World, mint_pkp: bool
) -> None:
    view = world.session(mint_pkp=mint_pkp)
    held = world.pay(view, 5, hold=True)
    for _ in range(2):  # again changes nothing
        assert (pause(world, view).state, pause(world, view).paused_by) == ("paused", BY)
    assert code(world, view) == "SESSION_PAUSED"
    world.engine.tick()
    captured = world.engine.ledger.capture(WORKSPACE, held.id).result()
    assert captured.state == "captured"
    for _ in range(2):
        resumed = resume(world, view)
        assert (resumed.state, resumed.paused_by) == ("active", None)
    assert code(world, view) == "ALLOWED"
    kinds = [record.kind for record in records_of(world, view)]
    assert [kinds.count(f"session.{kind}") for kind in ("paused", "resumed")] == [1, 1]
    assert replayed(world, view).state == "active"


def test_what_is_paused_survives_a_restart_and_can_be_revoked(own: World) -> None:
    view, other = own.session(), own.session()
    pause(own, view)
    pause(own, other)
    own.reopen()
    assert code(own, view) == "SESSION_PAUSED"
    assert code(own, other) == "SESSION_PAUSED"
    ended = own.engine.revoke_session(WORKSPACE, view.id, by=BY)
    assert (ended.state, ended.paused_by) == ("revoked", None)
    assert resume(own, other).state == "active"


def test_only_what_is_active_is_paused_and_only_what_is_paused_goes_on(timed: World) -> None:
    waiting, ended = timed.create(), timed.session()
    timed.engine.revoke_session(WORKSPACE, ended.id, by=BY)
    short = timed.session(duration_ms=HOUR_MS)
    pause(timed, short)
    for act, view in ((pause, waiting), (pause, ended), (resume, ended), (resume, waiting)):
        with pytest.raises(Conflict):
            act(timed, view)
    with pytest.raises(NotFound):
        timed.engine.sessions.pause("elsewhere", short.id, by=BY)
    timed.clock.advance(2 * HOUR_MS)  # type: ignore[attr-defined]
    for act in (pause, resume):  # over, though nobody has swept it
        with pytest.raises(Conflict, match="expired"):
            act(timed, short)
    assert code(timed, short) == "SESSION_EXPIRED"


def test_what_is_beneath_stops_and_goes_on_with_it_but_for_what_was_paused_by_itself(
    world: World,
) -> None:
    parent = world.session()
    first, second = child_of(world, parent), child_of(world, parent)
    below = child_of(world, second)
    pause(world, second)
    pause(world, parent)
    family = (parent, first, second, below)
    assert {code(world, each) for each in family} == {"SESSION_PAUSED"}
    for each in (first, second, below):
        with pytest.raises(Conflict, match="above it is paused"):
            resume(world, each)
    with pytest.raises(Conflict):
        child_of(world, parent)
    resume(world, parent)
    assert [state(world, each) for each in family] == ["active", "active", "paused", "paused"]
    resume(world, second)
    assert {code(world, each) for each in family} == {"ALLOWED"}
    for each in family:
        replayed(world, each)


def test_an_operator_can_keep_one_stopped_that_was_stopped_with_its_parent(world: World) -> None:
    parent = world.session()
    child = child_of(world, parent)
    pause(world, parent)
    assert pause(world, child).paused_by == BY
    resume(world, parent)
    assert (state(world, parent), state(world, child)) == ("active", "paused")


def test_a_child_that_becomes_active_beneath_a_paused_parent_is_paused(world: World) -> None:
    parent = world.session()
    child = child_of(world, parent, await_consent=True)
    pause(world, parent)
    assert child.state == "awaiting_consent"
    assert world.consent(child).state == "paused"
    assert code(world, child) == "SESSION_PAUSED"
    resume(world, parent)
    assert code(world, child) == "ALLOWED"


def test_one_on_the_chain_that_is_registered_while_its_parent_is_paused_is_paused(
    own: World,
) -> None:
    parent = own.session(mint_pkp=True)
    child = child_of(own, parent, wait_s=0)
    assert child.state == "registering"
    pause(own, parent)
    own.engine.tick()
    assert state(own, child) == "paused"
    resume(own, parent)
    assert code(own, child) == "ALLOWED"
    kinds = [record.kind for record in records_of(own, child) if "session." in record.kind]
    assert kinds[1:] == ["session.registered", "session.paused", "session.resumed"]
    replayed(own, child)


def test_a_record_that_pauses_what_was_not_active_does_not_replay(world: World) -> None:
    view = world.session()
    pause(world, view)
    resume(world, view)
    created, paused, resumed = records_of(world, view)
    for wrong in ([created, resumed], [created, paused, resumed, resumed]):
        with pytest.raises(ReplayError):
            Replay(view.grant, view.grant_hash).feed(wrong)


def test_sessions_are_listed_by_what_they_are_at_that_moment(timed: World) -> None:
    app = timed.session(type="app", label="checkout", duration_ms=HOUR_MS)
    bot, other = timed.session(), timed.session(agent_id="other", duration_ms=HOUR_MS)
    pause(timed, other)

    def found(**wanted: str) -> set[str]:
        sessions, total = timed.engine.sessions.page(
            WORKSPACE, wanted=Wanted(timed.clock(), **wanted), offset=0, limit=10
        )
        assert total == len(sessions)
        return {each.id for each in sessions}

    assert found() == {app.id, bot.id, other.id}
    assert found(state="active") == {app.id, bot.id}
    assert found(state="paused") == found(agent_id="other") == {other.id}
    assert found(type="app") == found(label="checkout") == {app.id}
    assert found(type="app", state="paused") == set()
    timed.clock.advance(2 * HOUR_MS)  # type: ignore[attr-defined]
    for _ in range(2):  # before it is swept, and after
        assert found(state="expired") == {app.id, other.id}
        assert found(state="active") == {bot.id}
        assert found(state="paused") == set()
        timed.engine.tick()
