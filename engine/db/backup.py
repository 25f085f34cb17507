"""A copy of a data directory, beside the server that uses it or without one.

Each file of SQLite is copied as one committed state of it, by SQLite's own backup over a connection
that cannot write (https://www.sqlite.org/backup.html). An embedded chain is kept by its server for
itself, so where there is one the server has to be stopped. Keys are copied as well, or the copy
could not be opened; it is to be kept as safe as the original.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from engine.db.claim import DirectoryLock
from engine.errors import CannotStart, TallystickError

FIRST, LAST = "chain.sqlite3", "ledger.sqlite3"
_DATABASE = ".sqlite3"
_OPEN_THE_KEYS = ("kek", "kek.salt")
"""What the keys are sealed by, or what TALLYSTICK_KEK makes that from: a server has one of them."""
_LEFT_OUT = ("lock",)
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a file; its content is in the copy of that."""


class CannotBackUp(TallystickError):
    """Nothing was copied, or not all of it; the message says why."""

    code = "cannot_back_up"


def back_up(source: Path, target: Path) -> list[Path]:
    """Copy everything in the data directory `source` to the new or empty directory `target`.

    Returns the copies, which are durable by then.

    Raises:
        CannotBackUp: there is no ledger, `target` is not empty, or something cannot be copied. Or
            all is copied, but the file is missing that opens the keys, so it is no backup.
    """
    if not (source / LAST).is_file():
        raise CannotBackUp(f"there is no ledger at {source / LAST}")
    copies: list[Path] = []
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise CannotBackUp(f"{target} is not empty")
        with _kept_out(source) as alone, _removed_if_it_fails(copies):
            for path in _in_order(source):
                copies.append(target / path.name)
                _copy(path, copies[-1], alone)
            _sync(target)
        opens = any((target / name).exists() for name in _OPEN_THE_KEYS)
        if not opens and _has_keys(target / LAST):
            key, salt = (source / name for name in _OPEN_THE_KEYS)
            raise CannotBackUp(
                f"all is copied to {target}, but no server could be started there: {key} is "
                f"missing, or {salt} if TALLYSTICK_KEK is set, without which nothing opens the keys"
            )
    except (OSError, sqlite3.Error) as error:
        raise CannotBackUp(f"{source} cannot be copied to {target}: {error}") from error
    return copies


@contextmanager
def _removed_if_it_fails(copies: Sequence[Path]) -> Iterator[None]:
    """Half a copy is none, and would be in the way of the next."""
    try:
        yield
    except BaseException:
        for copy in copies:
            copy.unlink(missing_ok=True)
        raise


@contextmanager
def _kept_out(source: Path) -> Iterator[bool]:
    """Whether no server has the directory; then none can have it meanwhile."""
    try:
        lock = DirectoryLock(source)
    except CannotStart:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _in_order(source: Path) -> list[Path]:
    files = [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and path.name not in _LEFT_OUT and not path.name.endswith(_BESIDE)
    ]
    return sorted(files, key=lambda path: (path.name == LAST, path.name != FIRST))


def _copy(path: Path, copy: Path, alone: bool) -> None:
    copy.touch(mode=0o600, exist_ok=False)
    if path.suffix == _DATABASE:
        # Even for a reader SQLite would make files beside one that nobody has open.
        unused = alone and not path.with_name(f"{path.name}-wal").exists()
        how = "mode=ro&immutable=1" if unused else "mode=ro"
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as original,
            closing(sqlite3.connect(copy)) as copied,
        ):
            # In one step, so nothing that is written meanwhile is in it.
            original.backup(copied, progress=lambda status, *_: _not_busy(path, status))
    else:
        shutil.copyfile(path, copy)
    _sync(copy)


def _has_keys(ledger: Path) -> bool:
    """Whether a first start came so far that keys were sealed."""
    with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?immutable=1", uri=True)) as copy:
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'meta'"
        if copy.execute(tables).fetchone() is None:
            return False
        return copy.execute("SELECT 1 FROM meta").fetchone() is not None


def _not_busy(path: Path, status: int) -> None:
    """SQLite would wait for ever for who keeps a file to itself, as an embedded chain does."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise CannotBackUp(f"{path} is in use: stop the server, whose embedded chain it is, first")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
