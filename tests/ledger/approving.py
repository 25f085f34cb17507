"""Operators with keys of their own, and what the log tells of an approval."""

import json
from typing import Any

import sqlalchemy as sa

from engine.audit.replay import Replay
from engine.db.keys import ApiKey
from engine.db.tables import table
from engine.identifiers import secret_hash
from engine.ledger.approval import Approval
from engine.ledger.payment import Payment
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World, records_of

ABOVE_50 = Limits(None, 200 * USD, None, None, 50 * USD)
TTL_MS = 900_000

_keys = table(ApiKey)


def new_key(world: World, workspace: str = WORKSPACE) -> str:
    """The id of one more operator's key."""
    engine, secret = world.engine, world.engine.writer._scribe.identifiers.secret("zfi_test_")
    engine.writer.call(
        lambda batch: engine.access._key(batch, workspace, "operator", secret), workspace
    )
    return engine.access.operator(secret).key_id


def revoke_key(world: World, key_id: str, workspace: str = WORKSPACE) -> None:
    """What an operator will be able to do."""
    revoked = sa.update(_keys).where(_keys.c.id == key_id)
    world.engine.writer.call(
        lambda batch: batch.update(revoked.values(revoked_ms=batch.now_ms)), workspace
    )


def first_key(world: World) -> str:
    """The id of the admin's."""
    assert world.operator_key is not None
    with world.engine.database.reading() as connection:
        wanted = sa.select(_keys.c.id).where(_keys.c.secret_hash == secret_hash(world.operator_key))
        return str(connection.execute(wanted).scalar_one())


def asked_for(world: World, view: SessionView, dollars: int = 60, **how: Any) -> Approval:
    """Ask for more than the session may pay alone: the approval that now waits."""
    return approval_of(world, world.pay(view, dollars, **how))


def approval_of(world: World, denied: Payment) -> Approval:
    """What a denied payment waits for."""
    assert (denied.state, denied.decision["code"]) == ("denied", "APPROVAL_REQUIRED")
    assert denied.approval_id is not None
    return shown(world, denied.approval_id)


def shown(world: World, approval: str) -> Approval:
    """An approval as it stands now."""
    return world.engine.approvals.get(WORKSPACE, approval, world.clock())


def grant(world: World, approval: Approval, key_id: str) -> Approval:
    """Grant it."""
    return world.engine.approvals.grant(WORKSPACE, approval.id, by=key_id)


def told(world: World, view: SessionView) -> list[str]:
    """The kinds of a session's records about approvals and payments."""
    return [record.kind for record in records_of(world, view) if "session." not in record.kind]


def events(world: World, view: SessionView) -> list[tuple[str, dict[str, Any]]]:
    """The outbox of a session, but for its own creation."""
    rows = query(
        world.store,
        "SELECT event, payload_json FROM outbox WHERE stream = ? ORDER BY id",
        view.id,
    )
    return [(name, json.loads(payload)) for name, payload in rows[1:]]


def replayed(world: World, view: SessionView) -> Replay:
    """What an auditor makes of the session's records; it fails if they do not replay."""
    replay = Replay(view.grant, view.grant_hash)
    replay.feed(records_of(world, view))
    return replay
