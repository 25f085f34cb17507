"""What is noted is noted once, until it is resolved."""

import pytest

from engine.audit.canonical import CanonicalError
from engine.ledger.discrepancies import Discrepancy, note, open_discrepancies, resolve
from engine.ledger.stream import workspace_stream
from engine.sessions.session import SessionView
from tests.world import WORKSPACE, World

KIND = "anchor_missing"


def found(world: World, subject: str, workspace: str | None = None) -> list[Discrepancy]:
    with world.engine.database.reading() as connection:
        every = open_discrepancies(connection.execute, workspace)
    return [each for each in every if each.subject == subject]


def noted(world: World, subject: str, size: int, view: SessionView | None = None) -> bool:
    stream = None if view is None else view.stream
    return world.engine.writer.call(
        lambda batch: note(batch, KIND, subject, "warning", {"size": size}, stream)
    )


def resolved(world: World, subject: str) -> bool:
    return world.engine.writer.call(lambda batch: resolve(batch, KIND, subject))


def test_it_is_noted_once_with_what_was_seen_last(world: World) -> None:
    assert noted(world, "anchor 1", 1)
    [first] = found(world, "anchor 1")
    world.clock.advance(5_000)  # type: ignore[attr-defined]
    assert not noted(world, "anchor 1", 2)
    assert noted(world, "anchor 2", 3)
    [again] = found(world, "anchor 1")
    assert again.id == first.id
    assert (first.evidence, again.evidence) == ({"size": 1}, {"size": 2})
    assert again.first_seen_ms == first.first_seen_ms == first.last_seen_ms
    assert again.last_seen_ms == first.last_seen_ms + 5_000
    assert (again.kind, again.severity, again.resolved_ms) == (KIND, "warning", None)


def test_resolved_it_is_another_one_when_it_is_seen_again(world: World) -> None:
    assert not resolved(world, "anchor 3")
    noted(world, "anchor 3", 1)
    [first] = found(world, "anchor 3")
    assert resolved(world, "anchor 3")
    assert found(world, "anchor 3") == []
    assert not resolved(world, "anchor 3")
    assert noted(world, "anchor 3", 1)
    [second] = found(world, "anchor 3")
    assert second.id != first.id


def test_it_says_whose_it_is(world: World) -> None:
    view = world.session()
    noted(world, view.id, 1, view)
    world.engine.writer.call(
        lambda batch: note(batch, KIND, "ours", "info", {}, workspace_stream(WORKSPACE))
    )
    noted(world, "anchor 4", 1)
    [of_session] = found(world, view.id, WORKSPACE)
    [of_workspace] = found(world, "ours", WORKSPACE)
    [of_none] = found(world, "anchor 4")
    assert (of_session.session_id, of_session.session_type) == (view.id, view.type)
    assert (of_workspace.workspace_id, of_workspace.session_id) == (WORKSPACE, None)
    assert (of_none.workspace_id, of_none.session_id) == (None, None)
    assert found(world, "anchor 4", WORKSPACE) == found(world, view.id, "other") == []


def test_evidence_that_is_not_json_of_the_log_is_not_noted(world: World) -> None:
    with pytest.raises(CanonicalError):
        note(None, KIND, "anchor 5", "info", {"share": 0.5})  # type: ignore[arg-type]
    assert found(world, "anchor 5") == []
