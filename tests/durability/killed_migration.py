"""A process that opens a database and dies by SIGKILL on the brink of one of its statements."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

import engine.db
from engine.db import migrate, postgres, sqlite

MIGRATIONS = Path(engine.db.__file__).with_name("migrations")


@contextmanager
def release(directory: Path | None) -> Iterator[None]:
    """The engine as it is with the `migrations` in this directory; None: with its own."""
    own = migrate.resources, migrate.NEWEST
    if directory is not None:
        other = SimpleNamespace(files=lambda _package: directory)
        migrate.resources, migrate.NEWEST = other, "0002"
    try:
        yield
    finally:
        migrate.resources, migrate.NEWEST = own


def die(store: Path | str, place: int, directory: Path | None) -> None:
    """Open it and be killed before statement or commit number `place`; return if there are less."""
    passed = 0

    def brink(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "before_cursor_execute", brink)
    sa.event.listen(sa.Engine, "commit", brink)
    kind = postgres.PostgresDatabase if isinstance(store, str) else sqlite.SqliteDatabase
    with release(directory):
        kind(store).close()
