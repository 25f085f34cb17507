"""An installation in which everything has happened that reconciliation compares."""

from engine.sessions.session import SessionView
from tests.world import WORKSPACE, World


def story(world: World) -> SessionView:
    """Sessions of every kind, payments, revocations and anchors; returns one that is active."""
    active = world.session(mint_pkp=True)
    world.pay(active, 1)
    world.session(mint_pkp=False)
    world.create()
    ended = world.session(mint_pkp=True)
    world.engine.anchor()
    world.engine.revoke_session(WORKSPACE, ended.id, by="somebody")
    world.engine.tick()
    world.pay(active, 1)
    world.engine.anchor()
    return active
