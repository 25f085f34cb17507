"""The `meta` table: what an installation belongs to, as names and values."""

from collections.abc import Mapping

import sqlalchemy as sa

from engine.db.database import Database
from engine.db.tables import Meta, table

KEK_SALT = "kek_salt"
"""The one row that is there before the first start is done, and only in a shared database."""

_meta = table(Meta)


def read_meta(database: Database) -> dict[str, str]:
    """All of it."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(_meta.c.key, _meta.c.value)).all()
    return {row.key: row.value for row in rows}


def write_meta(database: Database, values: Mapping[str, str]) -> None:
    """Add to it, in one transaction."""
    with database.writer.begin():
        database.begin(())
        rows = [{"key": key, "value": value} for key, value in values.items()]
        database.insert_many(_meta, rows)
