"""Processes that start quickly: forked from one that has loaded everything and done nothing yet."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

_LOADED = (
    "pytest",
    "tests.anvil_world",
    "tests.durability.peer",
    "tests.durability.killed_migration",
    "tests.ledger.forked_server",
)


def forked() -> ForkServerContext:
    """Where to get a `Process`."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED))
    return context
