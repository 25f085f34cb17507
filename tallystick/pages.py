"""Lists that a server answers page by page, the newest first, as one iterator."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Any


def each_of_pages(page: Callable[[int], Any]) -> Iterator[Any]:
    """What pages 1, 2 … list under `data`; each once, also when new ones push others to the next
    page. An entry that stops matching a filter meanwhile can hide the one after a page."""
    seen: set[str] = set()
    for number in count(1):
        found = page(number)
        yield from _unseen(found["data"], seen)
        if number >= found["pagination"]["total_pages"]:
            return


def each_of_parts(part: Callable[[int], Sequence[Any]], *, limit: int) -> Iterator[Any]:
    """The same where a page is a bare list of at most `limit`."""
    seen: set[str] = set()
    for number in count(1):
        found = part(number)
        yield from _unseen(found, seen)
        if len(found) < limit:
            return


async def async_each_of_pages(page: Callable[[int], Awaitable[Any]]) -> AsyncIterator[Any]:
    """`each_of_pages` on asyncio."""
    seen: set[str] = set()
    for number in count(1):
        found = await page(number)
        for entry in _unseen(found["data"], seen):
            yield entry
        if number >= found["pagination"]["total_pages"]:
            return


async def async_each_of_parts(
    part: Callable[[int], Awaitable[Sequence[Any]]], *, limit: int
) -> AsyncIterator[Any]:
    """`each_of_parts` on asyncio."""
    seen: set[str] = set()
    for number in count(1):
        found = await part(number)
        for entry in _unseen(found, seen):
            yield entry
        if len(found) < limit:
            return


def _unseen(entries: Sequence[Any], seen: set[str]) -> Iterator[Any]:
    for entry in entries:
        if entry["id"] not in seen:
            seen.add(entry["id"])
            yield entry
