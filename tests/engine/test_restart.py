"""A restart finds everything where it was, and does nothing twice."""

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.chain.gateway import BlockHeader
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.errors import CannotStart, Unauthenticated
from engine.policy.limits import Limits
from tests.sessions.seen import events
from tests.world import USD, WORKSPACE, World


def lived(world: World) -> None:
    """Leave something of everything behind."""
    limited = world.session(Limits(None, 10 * USD, None, None, None), mint_pkp=True)
    world.pay(limited, 3)
    world.pay(limited, 4, hold=True)
    world.pay(limited, 9)
    ended = world.session(mint_pkp=True)
    world.engine.revoke_session(WORKSPACE, ended.id, by="somebody")
    world.create()
    world.session(mint_pkp=False)
    world.engine.anchor()


def chain_of(world: World) -> list[BlockHeader]:
    gateway = world.engine.gateway
    blocks = [gateway.block(number) for number in range(gateway.head().number + 1)]
    assert None not in blocks
    return [block for block in blocks if block is not None]


def everything(world: World) -> dict[str, Any]:
    """What an installation knows, and its chain."""
    engine = world.engine
    sessions = engine.sessions.page(WORKSPACE, offset=0, limit=1000)[0]
    rows = table(ChainEvent)
    with engine.database.reading() as connection:
        indexed = connection.execute(sa.select(rows)).all()
    return {
        "sessions": sessions,
        "remaining": [engine.remaining(view) for view in sessions],
        "payments": engine.payments.page(WORKSPACE, session_id=None, offset=0, limit=100),
        "ready": engine.ready(),
        "log": engine._log.tree.root(engine._log.size),
        "deployment": (engine.deployment.log_verifier_key, engine.deployment.operator.address),
        "events": indexed,
        "chain": chain_of(world),
    }


def test_a_restart_finds_everything_and_does_nothing(world: World) -> None:
    lived(world)
    world.engine.tick()
    before = everything(world)
    assert before["ready"]["ready"]
    for _ in range(2):
        world.reopen()
        world.engine.tick()
        assert everything(world) == before


def test_after_a_restart_the_database_holds_the_blocks_of_the_chain(world: World) -> None:
    lived(world)
    world.reopen()
    lived(world)
    world.engine.tick()
    blocks = {block.number: block for block in chain_of(world)}
    rows = table(ChainBlock)
    with world.engine.database.reading() as connection:
        kept = connection.execute(sa.select(rows)).all()
    assert max(row.number for row in kept) == max(blocks)
    for row in kept:
        block = blocks[row.number]
        assert tuple(row) == (block.number, block.hash, block.parent_hash, block.timestamp_s)


def test_what_was_asked_of_the_chain_before_a_stop_is_done_after_the_start(world: World) -> None:
    revoked = world.session(mint_pkp=True)
    registering = world.consent(world.create(), wait_s=0)
    world.engine.revoke_session(WORKSPACE, revoked.id, by="somebody")
    assert events(world.engine, "SessionRegistered", registering) == []
    world.reopen()
    assert world.engine.sessions.get(WORKSPACE, registering.id).state == "active"
    assert len(events(world.engine, "SessionRegistered", registering)) == 1
    assert len(events(world.engine, "SessionRevoked", revoked)) == 1


def test_a_session_can_be_used_with_the_token_from_before(world: World) -> None:
    view = world.session(mint_pkp=True)
    token = world.token
    world.reopen()
    holder = world.engine.access.session_holder(token)
    assert (holder.workspace_id, holder.session_id) == (WORKSPACE, view.id)
    assert world.pay(view, 1).decision["code"] == "ALLOWED"


def test_the_admin_key_is_made_once_and_can_be_replaced(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    first = world.operator_key
    assert first is not None
    world.reopen()
    assert world.engine.access.ensure_admin(None) is None
    assert world.engine.access.operator(first).admin
    assert world.engine.access.ensure_admin("a-key-of-my-own-choosing-1234") is None
    assert world.engine.access.operator("a-key-of-my-own-choosing-1234").admin
    with pytest.raises(Unauthenticated):
        world.engine.access.operator(first)
    world.reopen()
    assert world.engine.access.ensure_admin("a-key-of-my-own-choosing-1234") is None
    assert world.engine.access.operator("a-key-of-my-own-choosing-1234").admin
    world.engine.close()


def test_closing_ends_every_thread_and_what_waits_is_answered(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    world = World(tmp_path / "data")
    world.engine.start()
    rpc = world.engine.serve_embedded_chain()
    assert rpc is not None
    view = world.session()
    waiting = [
        world.engine.ledger.authorise(
            view.id, world.request(1), memo={"description": None, "metadata_json": "{}"}
        )
        for _ in range(50)
    ]
    rpc.stop()
    world.engine.close()
    assert [future.result().decision["code"] for future in waiting] == ["ALLOWED"] * 50
    assert set(threading.enumerate()) <= before


def test_an_earlier_admin_key_can_be_taken_again(world: World) -> None:
    access = world.engine.access
    one, two = "the-first-key-of-my-own-1234", "the-second-key-of-my-own-1234"
    for secret, other in ((one, None), (two, one), (one, two), (one, two)):
        assert access.ensure_admin(secret) is None
        assert access.operator(secret).admin
        if other is not None:
            with pytest.raises(Unauthenticated):
                access.operator(other)


def test_the_key_of_an_operator_is_not_taken_for_the_admins(world: World) -> None:
    theirs = world.engine.access.create_workspace("acme", "Acme")
    with pytest.raises(CannotStart, match=r"TALLYSTICK_ADMIN_KEY: .* workspace acme"):
        world.engine.access.ensure_admin(theirs)
    assert world.engine.access.operator(theirs).workspace_id == "acme"
