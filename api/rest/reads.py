"""What a request on the event loop reads from the database."""

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from engine.engine import Engine

Answer = TypeVar("Answer")


async def read(engine: Engine, find: Callable[..., Answer], *arguments: object) -> Answer:
    """What `find` reads.

    A database server may keep its callers waiting: it is asked on a thread, and other requests go
    on meanwhile. A file is read at once, which takes less than to have a thread do it.
    """
    if engine.database.shared:
        return await to_thread.run_sync(find, *arguments)
    return find(*arguments)
