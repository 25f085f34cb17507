"""Rows that are inserted together: all of them, in their order, in few different statements."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from engine.db import postgres as on_postgres
from engine.db.inserts import ROWS_A_STATEMENT, Inserts
from engine.db.pipeline import Pipeline, Statement
from engine.db.tables import Meta, table
from tests.servers import PostgresServer
from tests.world import World

META = table(Meta)


def rows_of(count: int) -> list[dict[str, str]]:
    return [{"key": f"row-{number:04}", "value": f"'{number}' $1 ?"} for number in range(count)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresServer,
) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("inserts") / "data"
    with postgres.database() as url:
        shared: dict[str, Any] = {"database": url, "kek": "the same for every server"}
        world = World(directory, **(shared if request.param == "postgresql" else {}))
        yield world
        world.engine.close()


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 600, 1023])
def test_any_number_of_rows_is_inserted_in_its_order_with_few_statements(
    world: World, count: int
) -> None:
    rows = rows_of(count)
    dialect = world.engine.database.writer.dialect
    statements = list(Inserts(dialect, lambda _: "?").statements(META, rows))
    assert len(statements) == count // ROWS_A_STATEMENT + (count % ROWS_A_STATEMENT).bit_count()
    assert sum(len(values) for _, values in statements) == 2 * count
    database = world.engine.database
    order = sa.text("ctid" if database.shared else "rowid")
    with database.writer.begin() as transaction:
        database.begin(())
        database.insert_many(META, rows)
        places = sa.select(META).where(META.c.key.like("row-%")).order_by(order)
        assert [row._asdict() for row in database.writer.execute(places)] == rows
        transaction.rollback()  # so that the next test finds none


def test_the_widest_table_has_room_for_all_the_rows_of_a_statement() -> None:
    """SQLite takes 32,766 variables unless it is built otherwise, PostgreSQL 65,535."""
    widest = max(len(each.columns) for each in SQLModel.metadata.tables.values())
    assert widest * ROWS_A_STATEMENT <= 32_766


@pytest.mark.parametrize("world", ["postgresql"], indirect=True)
def test_a_server_is_waited_for_once_in_so_many_statements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_postgres, "STATEMENTS_TOGETHER", 3)
    sent: list[list[str]] = []
    run = Pipeline.run

    def seen(pipeline: Pipeline, statements: list[Statement]) -> object:
        sent.append([statement.sql.split()[0] for statement in statements])
        return run(pipeline, statements)

    database = world.engine.database
    with database.writer.begin():
        database.begin(())
        monkeypatch.setattr(Pipeline, "run", seen)
        database.finish({META: rows_of(256 + 15)}, {}, 0)
    assert sent == [["INSERT"] * 3, ["INSERT"] * 2 + ["COMMIT"]]
    with database.reading() as connection:
        stored = sa.select(META).where(META.c.key.like("row-%")).order_by(META.c.key)
        assert [row._asdict() for row in connection.execute(stored)] == rows_of(256 + 15)
