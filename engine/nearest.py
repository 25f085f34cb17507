"""The known name that somebody may have meant who wrote another."""

from collections.abc import Iterable
from difflib import get_close_matches

_LENGTH_MAX = 100
"""What is longer is none of ours, and would take long to be compared."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the known names, if one is near."""
    if len(name) > _LENGTH_MAX:
        return None
    return next(iter(get_close_matches(name, known, n=1)), None)
