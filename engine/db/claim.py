"""A data directory is one process's, and the data file in it is sound.

Nothing here takes long to import. So whoever starts a server claims the directory first, and SQLite
goes through the file on a thread, by a processor of its own, while all else is imported.
"""

import fcntl
import os
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

from engine.errors import CannotStart
from engine.settings import Settings

APPLICATION_ID = 0x54_4C_53_54  # "TLST", kept in the file's header
DATA_FILE = "ledger.sqlite3"


class DirectoryLock:
    """An exclusive lock on a data directory, held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CannotStart(f"data directory {directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise CannotStart(
                f"data directory {directory} is in use by another process; "
                "stop it or choose another TALLYSTICK_DATA_DIR"
            ) from error

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._descriptor)


class Claim:
    """The data directory of `settings`, if they need one: locked, and its data file looked at.

    Whoever opens the data file waits for `checked`, which raises what `check_file` does.
    """

    def __init__(self, settings: Settings) -> None:
        """Lock at once.

        Raises:
            CannotStart: another process has the directory, or it cannot be made.
        """
        self._lock: DirectoryLock | None = None
        self.checked: Future[None] | None = None
        if settings.database is None or settings.chain == "embedded":
            self._lock = DirectoryLock(settings.data_dir)
        if settings.database is None:
            self.checked = Future()
            given = self.checked, settings.data_dir / DATA_FILE
            try:
                # A daemon: who is told to end meanwhile does not wait for it.
                threading.Thread(target=_check, args=given, name="check", daemon=True).start()
            except BaseException:  # there is no room for another thread
                self.release()
                raise

    def release(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            self._lock.release()


def _check(checked: "Future[None]", path: Path) -> None:
    try:
        check_file(path)
    except BaseException as error:  # noqa: BLE001 (whatever it was, somebody waits for it)
        checked.set_exception(error)
    else:
        checked.set_result(None)


def check_file(path: Path) -> None:
    """Look before anything is written: a file that is not ours stays as it is.

    Raises:
        CannotStart: it is corrupt or of another program.
        sqlite3.DatabaseError: it cannot be read.
    """
    path = path.resolve()
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (ours,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and ours != APPLICATION_ID:
            raise CannotStart(f"data file {path} is not a Tallystick database")
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise CannotStart(f"data file {path} is corrupt: {finding}")
