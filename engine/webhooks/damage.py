"""Rows that are damaged: they are left out, so that they keep nobody else's events waiting."""

from collections.abc import Hashable, Iterable

import sqlalchemy as sa
import structlog

from engine.db.database import of_its_rows
from engine.errors import TallystickError

AGAIN_MS = 60_000
"""So long an endpoint of which something is damaged is left out, before it is tried again."""
SAID_MAX = 10_000
"""So much is remembered as said."""

_log = structlog.get_logger(__name__)


def is_damage(error: BaseException) -> bool:
    """Whether a row is at fault, and not the database, which would fail for the others as well."""
    if isinstance(error, TallystickError):
        cause = error.__cause__
        return error.code.endswith("_damaged") or (cause is not None and is_damage(cause))
    if isinstance(error, sa.exc.DBAPIError):
        return of_its_rows(error)
    return not isinstance(error, sa.exc.SQLAlchemyError | OSError)


class Said:
    """What was said once and need not be said again."""

    def __init__(self) -> None:
        self._said: set[Hashable] = set()

    def once(self, what: Hashable) -> bool:
        """Whether it is to be said now."""
        if what in self._said:
            return False
        if len(self._said) >= SAID_MAX:
            self._said.clear()
        self._said.add(what)
        return True

    def forget(self, whats: Iterable[Hashable]) -> None:
        """Say it again when it comes again."""
        self._said.difference_update(whats)


class LeftOut:
    """Endpoints that nothing is sent to for a while, by their ids. One thread uses it."""

    def __init__(self) -> None:
        self._until_ms: dict[str, int] = {}
        self._said = Said()

    def add(self, endpoint_id: object, error: Exception, now_ms: int) -> None:
        """Leave one out. What is damaged may be its id, so that it cannot be asked for."""
        if isinstance(endpoint_id, str):
            self._until_ms[endpoint_id] = now_ms + AGAIN_MS
        if self._said.once(str(endpoint_id)):
            # Of other errors the name alone: they may tell the row, URL and all.
            known = isinstance(error, TallystickError) and error.code.endswith("_damaged")
            reason = str(error) if known else type(error.__cause__ or error).__name__
            _log.error("webhook_damaged", webhook=str(endpoint_id), reason=reason)

    def at(self, now_ms: int) -> list[str]:
        """Those that still are."""
        self._until_ms = {name: at for name, at in self._until_ms.items() if at > now_ms}
        return list(self._until_ms)

    def forget(self, endpoint_ids: Iterable[str]) -> None:
        """Something of theirs was written down again: if they are damaged once more, say so."""
        self._said.forget(endpoint_ids)
