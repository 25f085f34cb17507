"""A row that somebody changed keeps no other session from what the chain says, or from its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.chain import contracts
from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.ledger.batch import Batch
from engine.sessions.session import SessionView
from tests.ledger.oracle import alter, query
from tests.sessions.hands import close_workspace, discrepancies, send
from tests.world import World

DAY_MS = 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Of each test alone, since it is damaged. Its clock moves when a test says so."""
    opened = World(tmp_path / "data", ManualClock(1_800_000_000_000))
    yield opened
    opened.engine.close()


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(view.workspace_id, view.id).state


def code(world: World, view: SessionView) -> str:
    try:
        return str(world.pay(view, 1).decision["code"])
    except Unavailable as refused:
        return refused.code


def changed(world: World, sql: str, *values: Any) -> None:
    """The engine reads it again; it is changed while it is open."""
    assert alter(world.store, sql, *values) >= 1


@pytest.mark.parametrize("far", [9_007_199_254_740_991, "zzz"])
def test_one_row_of_an_expired_session_is_no_clock_for_all(world: World, far: Any) -> None:
    over, other = world.session(), world.session(mint_pkp=True)
    world.engine.writer.call(lambda batch: world.engine.sessions.expired(batch, over, {}), over.id)
    world.engine.close()
    changed(world, "UPDATE sessions SET expires_ms = ? WHERE id = ?", far, over.id)
    world.engine = world._open()
    assert state(world, other) == "active"
    assert world.pay(other, 1).state == "captured"


@pytest.mark.parametrize("known", ["in memory", "not in memory"])
def test_a_token_id_that_is_none_is_its_sessions_alone(world: World, known: str) -> None:
    odd, other = world.session(mint_pkp=True), world.session(mint_pkp=True)
    assert [code(world, each) for each in (odd, other)] == ["ALLOWED"] * 2
    if known == "not in memory":
        world.engine.writer._forget_all()
    changed(world, "UPDATE sessions SET token_id = 'text' WHERE id = ?", odd.id)
    given_up: list[str] = []
    world.engine.writer.on_abandoned_batch(lambda: given_up.append("all"))
    if known == "in memory":
        world.engine.tick()  # which holds it against its row
    assert [code(world, each) for each in (odd, other)] == ["session_damaged", "ALLOWED"]
    for _ in range(2):
        world.engine.tick()
    assert [each.kind for each in discrepancies(world, odd)] == ["session_damaged"]
    close_workspace(world)  # by which whoever may be of it ends
    world.engine.tick()
    assert state(world, other) == "revoked"
    states = query(world.store, "SELECT state FROM sessions WHERE id = ?", odd.id)
    assert states == [("revoked",)]
    assert given_up == []


def test_a_tick_looks_at_some_again_and_again_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [world.session(mint_pkp=True) for _ in range(7)]
    monkeypatch.setattr("engine.ledger.accounts.RECHECKED_MAX", 2)
    monkeypatch.setattr("engine.ledger.memory.RECHECKS", 3)
    world.engine.writer._forget_all()
    assert {code(world, each) for each in views} == {"ALLOWED"}
    changed(world, "UPDATE sessions SET token_id = id")
    noted = []
    for _ in range(2):
        world.engine.tick()
        noted.append(sum(len(discrepancies(world, each)) for each in views))
    assert noted == [6, 7]


def test_a_tick_examines_all_that_could_not_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [world.session(mint_pkp=True) for _ in range(5)]
    monkeypatch.setattr("engine.ledger.accounts.RECHECKED_MAX", 2)
    changed(world, "UPDATE sessions SET token_id = 'text ' || id")
    world.engine.writer._forget_all()
    assert {code(world, each) for each in views} == {"session_damaged"}
    world.engine.tick()
    assert [len(discrepancies(world, each)) for each in views] == [1] * 5


def test_a_tick_ends_with_the_last_that_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(batch: Batch) -> list[str]:
        looks.append(batch)
        return list(suspects(batch))

    suspects = world.engine.ledger.memory.accounts.suspects
    monkeypatch.setattr(world.engine.ledger.memory.accounts, "suspects", look)
    world.session()
    world.engine.tick()
    assert len(looks) == 1


@pytest.mark.parametrize("args", ["{", "[]", '{"grantHash": 7}'])
def test_an_event_that_cannot_be_read_is_its_sessions_alone(world: World, args: str) -> None:
    odd, other = world.session(mint_pkp=True), world.session(mint_pkp=True)
    event = "UPDATE chain_events SET args_json = ? WHERE subject = ?"
    changed(world, event, args, odd.token_id)
    for view in (odd, other):
        send(world, world.owner, contracts.revoking(view.grant, view.token_id))
    world.engine.tick()
    assert state(world, other) == "revoked"
    assert world.engine.ready()["ready"]
    assert code(world, odd) in ("SESSION_REVOKED", "session_damaged")
    world.reopen()


@pytest.mark.parametrize("column", ["public_key", "grant_json", "rotates_id"])
def test_a_registration_that_cannot_be_made_keeps_no_other_waiting(
    world: World, column: str
) -> None:
    odd = world.create(await_consent=True, wait_s=0)
    changed(world, f"UPDATE sessions SET {column} = 'zzz' WHERE id = ?", odd.id)
    changed(world, "UPDATE sessions SET state = 'registering' WHERE id = ?", odd.id)
    other = world.session(mint_pkp=True)
    assert other.state == "active"
    assert state_or_none(world, odd) in ("registering", None)
    world.reopen()
    assert world.session(mint_pkp=True).state == "active"


def state_or_none(world: World, view: SessionView) -> str | None:
    try:
        return state(world, view)
    except Unavailable:
        return None


ARGS = "UPDATE chain_events SET args_json = '{}' WHERE name = 'Anchored'"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE anchors SET replaced_json = 'zzz', state = 'sent'",
        ARGS.replace("{}", "{"),
        ARGS.replace("{}", '{"size": "-1", "root": "0x"}'),
    ],
)
def test_what_keeps_the_log_from_being_anchored_keeps_nothing_from_its_end(
    world: World, sql: str
) -> None:
    view = world.session()
    world.engine.anchor()
    world.engine.tick()
    held = world.pay(view, 1, hold=True)
    changed(world, sql)
    world.clock.advance(8 * DAY_MS)  # type: ignore[attr-defined]
    world.engine.tick()
    assert world.engine.payments.get(view.workspace_id, held.id).state == "expired"
    world.reopen()
    assert world.pay(world.session(), 1).state == "captured"
