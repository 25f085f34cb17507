"""Parts of lists, by number in the query."""

from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

from api.studio.asked import Asked
from engine.errors import InvalidInput

Row = TypeVar("Row")


class Pages(TypedDict):
    """Which page it is, and of how many."""

    page: int
    of: int


def paged(
    asked: Asked,
    read: Callable[[int, int], tuple[Sequence[Row], int]],
    size: int,
    name: str = "page",
) -> tuple[Sequence[Row], int, Pages]:
    """The page that the query asks for as `name`, how many rows there are in all, and its place.

    `read` takes an offset and a limit. What is asked for behind the last page is the last page.

    Raises:
        InvalidInput: it is no number.
    """
    page = max(1, whole_number(asked, name, 1))
    rows, total = read((page - 1) * size, size)
    of = max(1, -(-total // size))
    if page > of:
        page = of
        rows, total = read((page - 1) * size, size)
    return rows, total, {"page": page, "of": of}


def whole_number(asked: Asked, name: str, default: int) -> int:
    """A number in the query.

    Raises:
        InvalidInput: it is none, or above a million.
    """
    text = asked.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= 1_000_000):
        raise InvalidInput(name, "takes a whole number")
    return int(text)
