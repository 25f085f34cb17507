"""One consistent state of a database, read beside whoever writes to it; nothing is ever written.

A file of SQLite that no server has open is read as immutable: SQLite would make a shared memory
and a write-ahead log beside it even for a reader. While a server has it open, the reader is like
those of the server itself (`mode=ro`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from engine.db.claim import APPLICATION_ID
from engine.db.migrate import NEWEST, stored_version
from engine.db.patience import CHECK_S, STATEMENT_TIMEOUT_MS, PatientConnection
from engine.errors import TallystickError


class CannotRead(TallystickError):
    """There is no ledger, or it cannot be read to its end; nothing is said about what is in it."""

    code = "cannot_read"


@contextmanager
def snapshot(store: Path | str) -> Iterator[sa.Connection]:
    """A read-only connection to a file of SQLite, or to the PostgreSQL database of a URL.

    Raises:
        CannotRead: it is absent, not a ledger of this release, or does not answer.
    """
    try:
        with _sqlite(store) if isinstance(store, Path) else _postgres(store) as connection:
            _check_release(connection)
            yield connection
    except sa.exc.DBAPIError as error:
        raise CannotRead(f"the ledger cannot be read: {error.orig}") from error


@contextmanager
def _sqlite(path: Path) -> Iterator[sa.Connection]:
    path = path.resolve()
    log = path.with_name(path.name + "-wal")
    try:
        if not path.is_file():
            raise CannotRead(f"there is no ledger at {path}")
        unused, before = not log.exists(), path.stat()
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror}") from error
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if unused else {})
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=path.as_uri(), query=query),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"isolation_level": None},
    )
    sa.event.listen(engine, "connect", _read_any_text)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.connect() as connection, connection.begin():
        if connection.exec_driver_sql("PRAGMA application_id").scalar_one() != APPLICATION_ID:
            raise CannotRead(f"{path} is not a Tallystick database")
        yield connection
    after = path.stat()
    if unused and (
        log.exists() or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
    ):
        raise CannotRead(f"{path} was opened by a server while it was read: begin again")


def _read_any_text(connection: Any, _record: object) -> None:
    """Text that is not UTF-8 was put there by somebody; it must not end the check."""
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")


@contextmanager
def _postgres(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        connect_args={
            "application_name": "tallystick fsck",
            "options": (
                "-c default_transaction_read_only=on -c timezone=UTC -c search_path=public "
                # Only who changes the schema is in the way, and the reader is told so.
                f"-c lock_timeout={STATEMENT_TIMEOUT_MS}"
            ),
        },
    )
    sa.event.listen(engine, "do_connect", _connect_patiently)
    sa.event.listen(engine, "handle_error", _close_cursor)
    with engine.connect() as connection, connection.begin():
        yield connection


def _connect_patiently(
    _dialect: object, _record: object, arguments: Sequence[Any], named: Mapping[str, Any]
) -> PatientConnection:
    connection = PatientConnection.connect(*arguments, **named)
    connection.patience_s = CHECK_S
    return connection


def _close_cursor(context: Any) -> None:
    """SQLAlchemy leaves it open where the connection is lost, and psycopg warns of that."""
    if context.is_disconnect and context.execution_context is not None:
        context.execution_context.cursor.close()


def _check_release(connection: sa.Connection) -> None:
    found = stored_version(connection)
    if not found:
        raise CannotRead("the database holds no ledger")
    if found != [NEWEST]:
        raise CannotRead(f"the ledger is of another release: {', '.join(map(str, found))}")
