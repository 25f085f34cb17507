"""Faults at the database's door: at any statement of a transaction, and around its commit.

A crash copies the files as they are at that moment, which is what a killed process leaves behind,
and then ends everything with an exception that nobody in the engine catches. A torn crash is one of
the power: of what the last commit appended to the write-ahead log only a part is there.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from engine.chain.gateway import ChainUnavailable

Kind = Literal["crash", "torn", "full", "broken", "silent"]
Point = Literal["statement", "before commit", "after commit", "chain"]

_ERRORS = {"full": "SQLITE_FULL", "broken": "SQLITE_IOERR_FSYNC"}


class Crash(BaseException):
    """The process is gone. Not an `Exception`: the engine must not get to say anything."""


@dataclass
class Fault:
    """`kind` strikes when `point` was passed `after` times more."""

    kind: Kind
    point: Point
    after: int = 0
    torn: float = 0.0
    """Of a torn crash: how much of the last commit is on the disk, 0 to 1."""


class Faults:
    """At most one fault waits. `image` is where a crash leaves the files."""

    def __init__(self, files: Callable[[], Path]) -> None:
        self._files = files
        self.armed: Fault | None = None
        self.image: Path | None = None
        self._wal_before = 0

    def reached(self, point: Point) -> None:
        """Something passes here."""
        fault = self.armed
        if fault is None:
            return
        wal = self._wal()
        if fault.kind == "torn" and point == "before commit":
            self._wal_before = wal.stat().st_size if wal.exists() else 0
        if point != fault.point:
            return
        if fault.after:
            fault.after -= 1
            return
        self.armed = None
        if fault.kind in ("crash", "torn"):
            self.take_image(fault.torn if fault.kind == "torn" else None)
            raise Crash(f"{fault.kind} at {point}")
        if fault.kind == "silent":
            raise ChainUnavailable("the chain does not answer")
        cause = sqlite3.OperationalError(f"simulated {fault.kind}")
        cause.sqlite_errorname = _ERRORS[fault.kind]
        raise sa.exc.OperationalError(None, None, cause)

    def take_image(self, torn: float | None = None) -> None:
        """Copy the files, with only a part of the last commit if it is `torn`."""
        data_file = self._files()
        self.image = data_file.with_name(data_file.name + ".image")
        shutil.copyfile(data_file, self.image)
        wal = self._wal()
        copy = _wal_of(self.image)
        copy.unlink(missing_ok=True)
        if wal.exists():
            shutil.copyfile(wal, copy)
            size = wal.stat().st_size
            if torn is not None and size > self._wal_before:
                with copy.open("r+b") as file:
                    file.truncate(self._wal_before + int((size - self._wal_before) * torn))

    def _wal(self) -> Path:
        return _wal_of(self._files())


def _wal_of(data_file: Path) -> Path:
    return data_file.with_name(data_file.name + "-wal")


class Door:
    """Stands for the writer's connection and lets faults pass before it."""

    def __init__(self, connection: sa.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    @contextmanager
    def begin(self) -> Iterator[Any]:
        self._faults.reached("statement")
        with self._connection.begin() as transaction:
            yield transaction
            self._faults.reached("before commit")
        self._faults.reached("after commit")

    def execute(self, *args: Any, **more: Any) -> Any:
        self._faults.reached("statement")
        return self._connection.execute(*args, **more)

    def exec_driver_sql(self, *args: Any, **more: Any) -> Any:
        self._faults.reached("statement")
        return self._connection.exec_driver_sql(*args, **more)

    def close(self) -> None:
        self._connection.close()
