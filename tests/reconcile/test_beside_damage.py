"""What is damaged in one row, or planted in any number, hides no discrepancy of anything else."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from eth_keys.datatypes import PrivateKey

from api.rest.metrics import _Installation
from engine.chain import contracts, sender
from engine.db.tables import Anchor, ChainEvent, DiscrepancyRow, Session, table
from engine.ledger.discrepancies import Discrepancy
from engine.reconcile import reconciler
from engine.sessions.session import SessionView
from tests.sessions.hands import chain_of
from tests.world import World

anchors, events, sessions = table(Anchor), table(ChainEvent), table(Session)


def reconcile(world: World) -> list[Discrepancy]:
    world.engine.reconciler.run()
    return world.engine.reconciler.open()


def edit(world: World, statement: Any) -> None:
    """Change the database behind the engine's back, over the one connection that may."""
    world.engine.writer.call(lambda batch: batch.update(statement))


def a_wrong_root(world: World) -> str:
    """Something that has to be found; returns its kind."""
    size = world.engine.writer.call(
        lambda batch: batch.read(sa.select(sa.func.max(anchors.c.size))).scalar_one()
    )
    edit(world, sa.update(anchors).where(anchors.c.size == size).values(root=bytes(32)))
    return "anchor_differs"


@pytest.mark.parametrize("stored", ["'zzz'", "'null'", "'[1]'", "x'7b7d'", "5"])
def test_evidence_that_cannot_be_read_is_shown_as_such(world: World, stored: str) -> None:
    kind = a_wrong_root(world)
    reconcile(world)
    rows = table(DiscrepancyRow)
    edit(world, sa.update(rows).values(evidence_json=sa.literal_column(stored)))
    [found] = world.engine.reconciler.open()
    assert (found.kind, found.evidence) == (kind, {"unreadable": True})
    assert any(
        sample.labels["kind"] == kind and sample.value == 1
        for metric in _Installation(world.engine).collect()
        for sample in metric.samples
        if metric.name == "tallystick_discrepancies_open"
    )
    [again] = reconcile(world)  # it is seen again, and told anew
    assert (again.id, again.kind) == (found.id, kind)
    assert again.evidence["chain"] is not None


DAMAGES = {
    "a session's token": (sessions, "token_id", "'text'"),
    "the hash of a grant": (sessions, "grant_hash", "'text'"),
    "the transaction of an event": (events, "tx_hash", "'text'"),
    "the block of an event": (events, "block_hash", "'text'"),
    "the place of an event": (events, "log_index", "'abc'"),
    "the name of an event": (events, "name", "x'00'"),
    "the root of an anchor": (anchors, "root", "'text'"),
}
UNSAID = {
    "a session's state": (sessions, "state", "x'00'"),  # the ledger says that
    "the size of an anchor": (anchors, "size", "'abc'"),  # what is on the chain is adopted anew
}


@pytest.mark.parametrize("what", [*DAMAGES, *UNSAID])
def test_the_rest_is_compared_beside_what_cannot_be_read(
    world: World, view: SessionView, what: str
) -> None:
    changed, column, to = (DAMAGES | UNSAID)[what]
    kind = a_wrong_root(world)
    where = {
        "sessions": sessions.c.id == view.id,
        "chain_events": sa.and_(
            events.c.subject == view.token_id, events.c.name == "SessionRegistered"
        ),
        "anchors": anchors.c.size == sa.select(sa.func.min(anchors.c.size)).scalar_subquery(),
    }[changed.name]
    values = {column: sa.literal_column(to)}
    edit(world, sa.update(changed).where(where).values(values))
    found = reconcile(world)
    assert kind in [each.kind for each in found]
    assert (len(found) > 1) == (what in DAMAGES)
    assert {each.id for each in found} <= {each.id for each in reconcile(world)}


def test_any_number_of_one_kind_hides_nothing_of_another(
    world: World, view: SessionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may register on the registry can name our log for sessions that nobody has here."""
    monkeypatch.setattr(reconciler, "FILED_MAX", 3)
    registrations = []
    for number in range(1, 6):
        key = PrivateKey(bytes([number]) * 32).public_key
        grant = replace(view.grant, session_key=key.to_address(), salt=bytes([number]) * 32)
        registrations.append(contracts.registering(grant, b"\x04" + key.to_bytes()))
    for data in registrations:
        deployment = world.engine.deployment
        sender.send(chain_of(world), deployment.operator, to=deployment.registry, data=data)
    kind = a_wrong_root(world)
    for _ in range(2):
        found = [each.kind for each in reconcile(world)]
        assert sorted(found) == [kind, *["session_unknown_here"] * 3]
        last = world.engine.reconciler.last
        assert last is not None
        assert (last.found["critical"], last.left_out) == (6, 2)
