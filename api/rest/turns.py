"""Work that takes the processor from decisions, a little of it at a time."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread

Answer = TypeVar("Answer")


class Turns:
    """So many places on threads; nobody takes a second one, so that others wait for one at most."""

    def __init__(self, places: int) -> None:
        self._places = CapacityLimiter(places)
        self._theirs: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, workspace_id: str, work: Callable[[], Answer]) -> Answer:
        """What `work` returns, or raises, once it is this workspace's turn."""
        theirs = self._theirs.setdefault(workspace_id, asyncio.Lock())
        async with theirs:
            return await to_thread.run_sync(work, limiter=self._places)
