"""Stores that others wrote, by name."""

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from engine.errors import CannotStart
from engine.storage.store import Store

ENTRY_POINTS = "tallystick.stores"
"""The group in which a package names the stores that it brings."""

_VERBS = ("get", "set", "delete", "list")
_OPTIONAL = (
    *("get_many", "set_many", "delete_many", "replace", "check_set", "reserve", "release"),
    *("cursor_key", "close"),
)

S = TypeVar("S", bound=Store)


def define_session_store(store: S) -> S:
    """The same store, looked at: it has every verb that a store must have.

    Raises:
        TypeError: naming the verb that is missing or is no coroutine function.
    """
    for verb in (*_VERBS, *_OPTIONAL):
        method = getattr(store, verb, None)
        if method is None and verb in _OPTIONAL:
            continue
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"{type(store).__name__} is no store: it needs `async def {verb}`")
    return store


def load_store(reference: str) -> Store:
    """The store at `package.module:name`, or of that name among the installed entry points.

    What is there is a store, or is called without arguments and returns one.

    Raises:
        CannotStart: nothing is there, or it is no store.
    """
    found = _found(reference)
    is_store = all(hasattr(found, verb) for verb in _VERBS) and not inspect.isclass(found)
    try:
        store: Store = found() if callable(found) and not is_store else found
        return define_session_store(store)
    except Exception as error:
        raise CannotStart(f"TALLYSTICK_STORE: {reference}: {error}") from error


def _found(reference: str) -> Any:
    module, colon, name = reference.partition(":")
    try:
        if colon:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        installed = entry_points(group=ENTRY_POINTS)
        if reference in installed.names:
            return installed[reference].load()
    except Exception as error:
        raise CannotStart(f"TALLYSTICK_STORE: {reference}: {error}") from error
    names = ", ".join(sorted(installed.names)) or "none"
    raise CannotStart(
        f"TALLYSTICK_STORE: there is no store {reference}: takes `memory`, `sql`, `valkey://…`, "
        f"`package.module:name` or the name of an installed one (installed: {names})"
    )
