"""The routes of an application, and the methods of the resource at a path."""

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.types import Scope


def each_route(routes: Iterable[Any]) -> Iterator[Any]:
    """The routes of an application, and those of the routers that it includes."""
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            yield from route.effective_route_contexts()
        else:
            yield route


def methods_of(routes: Iterable[Any], scope: Scope) -> list[str]:
    """The methods of all routes that have the path of a request.

    Several routes may have one path, with a method each; a router knows the first of them.
    """
    path = scope["path"]
    found: set[str] = set()
    for each in each_route(routes):
        methods, pattern = getattr(each, "methods", None), getattr(each, "path_regex", None)
        if methods and pattern is not None and pattern.match(path):  # a mount has no methods
            found |= methods
    return sorted(found)
