"""Lists that a server answers page by page."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

PAGE_SIZE_MAX = 100


def newest(page: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What pages 1, 2 … list; each once, also when new ones push others to the next page."""
    seen: set[str] = set()
    for number in count(1):
        found = page(number)
        for entry in found["data"]:
            if entry["id"] not in seen:
                seen.add(entry["id"])
                yield entry
        if number >= found["pagination"]["total_pages"]:
            return
