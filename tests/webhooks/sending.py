"""What tests of deliveries do with an installation."""

import contextlib
import sqlite3
from typing import Any

from engine.policy.limits import Limits
from engine.webhooks.endpoint import Endpoint
from tests.webhooks.receiver import Receiver
from tests.world import WORKSPACE, World

NEEDS_APPROVAL = Limits(None, None, None, None, 0)


def endpoint(
    world: World, receiver: Receiver, *events: str, path: str = "", workspace: str = WORKSPACE
) -> Endpoint:
    """A webhook that wants these events, or all."""
    made, _ = world.engine.webhooks.create(
        workspace, receiver.url + path, events or ("*",), by="test"
    )
    return made


def shown(world: World, made: Endpoint) -> Endpoint:
    """The webhook as it is now."""
    return world.engine.webhooks.get(made.workspace_id, made.id)


def waiting(world: World, made: Endpoint) -> int:
    """How many events wait to be sent again."""
    return world.engine.webhooks.waiting(made.workspace_id).get(made.id, 0)


def deliver(world: World) -> None:
    """Give what is committed its place, and send what is due."""
    world.engine.lead.sequence()
    world.engine.delivery.tick()


def pass_time(world: World, by_ms: int) -> None:
    """Let time pass, and nothing else."""
    world.clock.advance(by_ms)  # type: ignore[attr-defined]


def rows(world: World, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What is in the database."""
    with contextlib.closing(sqlite3.connect(world.store)) as raw:
        return raw.execute(sql, values).fetchall()


def next_ms(world: World) -> int:
    """When the first of what waits is due."""
    [(due,)] = rows(world, "SELECT min(next_ms) FROM webhook_deliveries")
    return int(due)
