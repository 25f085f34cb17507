"""Reconciliation where many processes share one database, and in the background."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.db.tables import ChainEvent, Session, table
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.sessions.seen import events
from tests.world import WORKSPACE, World

index, sessions = table(ChainEvent), table(Session)


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that two servers can read."""
    with anvil_with_contracts() as running:
        yield running


def found(world: World) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in world.engine.reconciler.open()]


def test_any_server_of_a_database_reconciles_and_ends_what_is_over(
    anvil: AnvilWithContracts, tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.database() as url:
        shared = {"database": url, "kek": "the same for every server"}
        with (
            anvil.world(tmp_path / "first", **shared) as first,
            anvil.world(tmp_path / "second", **shared) as second,
        ):
            assert (first.engine.lead.leads, second.engine.lead.leads) == (True, False)
            view = first.session(mint_pkp=True)
            first.pay(view, 1)
            first.engine.anchor()
            for world in (first, second):
                world.engine.reconciler.run()
                assert found(world) == []
            monkeypatch.setattr(first.engine.lead, "_listener", lambda *_: None)
            first.engine.revoke_session(WORKSPACE, view.id, by="somebody")
            first.engine.tick()
            first.engine.tick()
            assert len(events(first.engine, "SessionRevoked", view)) == 1
            lost = sa.update(sessions).where(sessions.c.id == view.id).values(state="active")
            first.engine.writer.call(lambda batch: batch.update(lost))
            second.engine.reconciler.run()
            assert second.engine.sessions.get(WORKSPACE, view.id).state == "revoked"
            assert second.pay(view, 1).decision["code"] == "SESSION_REVOKED"
            assert found(first) == [("revoked_on_chain_only", view.id)]
            first.engine.reconciler.run()
            assert found(second) == []
            position = second.engine.lead.position()
            assert (position.head_number, position.lag) == (None, None)
            assert position.indexed_number == first.engine.lead.position().indexed_number


def test_the_background_reconciles_when_it_is_due(tmp_path: Path) -> None:
    world = World(tmp_path / "data", reconcile_interval_s=1)
    gone = sa.delete(index).where(index.c.name == "LogOpened")
    world.engine.writer.call(lambda batch: batch.update(gone))
    world.engine.start()
    condition = world.engine.lead.ticked
    with condition:
        assert condition.wait_for(lambda: len(found(world)) == 1, timeout=30)
    world.engine.close()
    assert world.engine.reconciler.last is not None


def test_a_background_that_fails_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "data", reconcile_interval_s=1)
    failures: list[None] = []

    def failing() -> None:
        failures.append(None)
        if len(failures) == 1:
            raise RuntimeError("a defect")

    monkeypatch.setattr(world.engine.reconciler, "run", failing)
    world.engine.start()
    condition = world.engine.lead.ticked
    with condition:
        assert condition.wait_for(lambda: len(failures) == 2, timeout=30)
    world.engine.close()
