"""The tables that the code knows are those that the migrations make, and a schema has one name."""

import hashlib

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlmodel import SQLModel

from engine.db.migrate import NEWEST
from tests.world import World


def test_the_migrations_make_the_tables_that_are_declared(world: World) -> None:
    with world.engine.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_another_first_schema_has_another_name(world: World) -> None:
    """Or a start would take data of an unreleased one for its own, and fail where they differ."""
    made = (
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name != 'alembic_version' "
        "ORDER BY sql"
    )
    with world.engine.database.reading() as connection:
        statements = [" ".join(sql.split()) for sql in connection.execute(sa.text(made)).scalars()]
    digest = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    assert f"first_{digest[:8]}" == NEWEST
