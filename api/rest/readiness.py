"""Whether decisions can be made, answered in time whatever the database does."""

from typing import Any

from anyio import CapacityLimiter, move_on_after, to_thread

from engine.engine import Engine

READY_S = 5.0
"""Who asks, such as a load balancer, does not wait for long."""
_ASKING = CapacityLimiter(4)
"""Threads of its own: all others may be waiting for the database."""


async def readiness(engine: Engine) -> dict[str, Any]:
    """What `Engine.ready` says; that the database does not answer if it does not say so in time."""
    with move_on_after(READY_S):
        return await to_thread.run_sync(engine.ready, limiter=_ASKING, abandon_on_cancel=True)
    return {
        "ready": False,
        "faults": ["the database does not answer"],
        "warnings": [],
        "records": None,
        "anchored": None,
        "networks": [],
    }
