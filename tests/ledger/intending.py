"""Payment intents, made and confirmed as the tests need them."""

from typing import Any

from engine.ledger.intent import Intent
from engine.ledger.intents import Confirmed, Confirming, NewIntent
from engine.ledger.once import Once
from engine.sessions.session import SessionView
from tests.world import WORKSPACE, World

MEMO: dict[str, Any] = {"description": "Paper", "metadata_json": "{}", "agent_name": None}
OPERATOR = "key_of_an_operator"


def intent(
    world: World,
    dollars: int,
    *,
    capture: Any = "automatic",
    agent: str | None = None,
    session: SessionView | None = None,
    life_s: int = 86_400,
    by: str = OPERATOR,
    once: Once | None = None,
) -> tuple[Intent, str]:
    """A new one, and its secret."""
    own = None if session is None else session.id
    new = NewIntent(world.request(dollars), capture, agent, own, life_s, MEMO)
    return world.engine.intents.create(WORKSPACE, new, by=by, once=once)


def confirm(
    world: World, made: Intent, secret: str, session: SessionView, **memo: Any
) -> Confirmed:
    """Have a session pay it."""
    sent = {"customer_wallet": "", **memo}
    confirming = Confirming(session.id, session.agent_id, secret, sent)
    return world.engine.intents.confirm(made.workspace_id, made.id, confirming)


def now(world: World, made: Intent) -> Intent:
    """As it is now."""
    return world.engine.intents.get(made.workspace_id, made.id, world.engine.clock())


def listed(world: World) -> list[Intent]:
    """All of the workspace, the newest first."""
    found, total = world.engine.intents.page(
        WORKSPACE, world.engine.clock(), seen=None, state=None, after=None, offset=0, limit=100
    )
    assert len(found) == total
    return found
