"""PostgreSQL, as whoever only reads it has it."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from engine.db.postgres import PostgresDatabase
from tests.servers import PostgresServer

COUNT = "SELECT count(*) FROM meta"
INSERT = "INSERT INTO meta (key, value) VALUES ('k', 'v')"


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[PostgresDatabase]:
    with postgres.database() as url:
        opened = PostgresDatabase(url)
        yield opened
        opened.close()


@pytest.mark.parametrize(
    "statement", [INSERT, "CREATE TABLE t (x int)", "SELECT nextval('log_batch_ids')"]
)
def test_readers_cannot_write(database: PostgresDatabase, statement: str) -> None:
    for _ in range(2):  # a new connection, and the same from the pool
        with (
            database.reading() as connection,
            pytest.raises(sa.exc.InternalError, match="read-only transaction"),
        ):
            connection.exec_driver_sql(statement)


def test_a_reader_sees_one_committed_state(database: PostgresDatabase) -> None:
    with database.reading() as connection:
        before = connection.exec_driver_sql(COUNT).scalar_one()
        database.writer.exec_driver_sql(INSERT)
        assert connection.exec_driver_sql(COUNT).scalar_one() == before
    with database.reading() as connection:
        assert connection.exec_driver_sql(COUNT).scalar_one() == before + 1
