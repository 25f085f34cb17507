"""A little of `scripts/fuzz-mcp`."""

from tests.mcp.fuzz import KEYS, fuzz
from tests.rest.served import Served


def test_whatever_is_said_is_answered_and_a_key_pays_once(served: Served) -> None:
    seen = fuzz(served, messages=150, seed=7)
    assert (seen["payments"], seen["transfers"]) == (2 * KEYS, KEYS)
    for way in ("HTTP", "stdio"):
        assert min(seen[f"{way}: {what}"] for what in ("answered", "errors", "cancelled")) > 0
