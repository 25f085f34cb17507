"""The schema: which version of it a database has, and how it gets the newest."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import resources

import sqlalchemy as sa

from engine.errors import CannotStart

NEWEST = "first_922593a7"
"""The last of `engine/db/migrations/versions`. Until it is released it has another name whenever it
is another schema, so that no start takes data of one for data of the other; and none begins with
another, which Alembic would take for it."""


def stored_version(connection: sa.Connection) -> list[str]:
    """The version of a database's schema as Alembic keeps it; empty if it has none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return []
    rows = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
    return list(rows.scalars())


def migrate(
    connection: sa.Connection,
    what: str,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str:
    """Bring the schema up to date and return its version; messages call the database `what`.

    Who may have it open in the version before is kept out by `alone` until that is done.

    Raises:
        CannotStart: it is of another release.
    """
    version = stored_version(connection)
    connection.rollback()  # each migration is a transaction of its own
    if version == [NEWEST]:
        return NEWEST
    # Importing Alembic takes longer than the rest of this, and nearly no start needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(resources.files("engine.db") / "migrations"))
    config.attributes["connection"] = connection
    try:
        with alone() if version else nullcontext():
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as error:
        raise CannotStart(f"{what} is of another release: {error}") from error
    return NEWEST
