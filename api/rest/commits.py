"""From the ledger's thread to the event loop: what was committed together arrives together.

A thread wakes an event loop by writing to a socket, and `asyncio.wrap_future` does so for every
answer. Here one wake-up brings all that were given since the last.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

Answer = TypeVar("Answer")
Heard = Callable[[Future[Answer]], None]


class Commits:
    """The answers that are on their way to an application, which lives on one event loop."""

    def __init__(self) -> None:
        self._given: deque[tuple[Heard[Any], Future[Any]]] = deque()
        self._ringing = False

    def tell(self, future: "Future[Answer]", heard: Heard[Answer]) -> None:
        """Call `heard` on the running event loop once `future` is done.

        It must not raise. If the loop is closed by then, nobody is told.
        """
        loop = asyncio.get_running_loop()

        def given(done: "Future[Answer]") -> None:
            self._given.append((heard, done))
            # Whoever clears this flag looks for answers afterwards, so this one is found.
            if not self._ringing:
                self._ringing = True
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._deliver)

        future.add_done_callback(given)

    async def wait(self, future: "Future[Answer]") -> Answer:
        """What `future` comes to, or its exception.

        A command is carried out whether or not its caller still waits.
        """
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def heard(done: "Future[Answer]") -> None:
            if waiting.done():  # it was cancelled
                return
            error = done.exception()
            if error is None:
                waiting.set_result(done.result())
            else:
                waiting.set_exception(error)

        self.tell(future, heard)
        return await waiting

    def _deliver(self) -> None:
        self._ringing = False
        while self._given:
            heard, done = self._given.popleft()
            heard(done)


async def get_commits(request: Request) -> Commits:
    """The answers that this application waits for."""
    commits: Commits = request.app.state.commits
    return commits


CommitsOf = Annotated[Commits, Depends(get_commits)]
