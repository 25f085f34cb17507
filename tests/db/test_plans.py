"""What is asked often looks at what it is about, and not at all that there is."""

import sqlalchemy as sa

from engine.db.sqlite import SqliteDatabase
from tests.ledger.intending import confirm, intent, listed
from tests.world import World


def test_intents_are_read_without_going_through_the_log(world: World) -> None:
    session = world.session()
    for _ in range(2):
        confirm(world, *intent(world, 1), session)
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(
        _: object, __: object, statement: str, values: tuple[object, ...], *more: object
    ) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, values))

    database = world.engine.database
    assert isinstance(database, SqliteDatabase)
    sa.event.listen(database._reading, "before_cursor_execute", note)
    newest, _ = listed(world)
    world.engine.intents.events(newest)
    sa.event.remove(database._reading, "before_cursor_execute", note)
    plans = []
    with database.reading() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            plans += [row[3] for row in plan]
    assert any("SEARCH records" in each for each in plans)
    assert [each for each in plans if each.startswith("SCAN ") and "VIRTUAL" not in each] == []
