"""Keys of operators: whatever becomes of one is on the record."""

import sqlalchemy as sa

from engine.audit.record import decode_record
from engine.db.tables import Record, table
from tests.world import WORKSPACE, World

FIRST, SECOND = "zfi_test_the_first_admin_key", "zfi_test_the_second_admin_key"


def told(world: World) -> list[tuple[str, str]]:
    """Kind and key of every record about a key."""
    rows = table(Record)
    query = sa.select(rows.c.body).where(rows.c.stream == WORKSPACE).order_by(rows.c.seq)
    with world.engine.database.reading() as connection:
        records = [decode_record(raw) for raw in connection.execute(query).scalars()]
    return [(r.kind, r.body["key"]) for r in records if r.kind.startswith("key.")]


def test_another_admin_key_takes_the_place_of_the_one_before_and_the_record_says_so(
    world: World,
) -> None:
    [(_, made)] = told(world)
    for secret in (FIRST, FIRST, SECOND, FIRST):
        world.engine.access.ensure_admin(secret)
    (_, first), (_, second) = [each for each in told(world) if each[0] == "key.created"][1:]
    assert told(world) == [
        ("key.created", made),
        ("key.revoked", made),
        ("key.created", first),
        ("key.revoked", first),
        ("key.created", second),
        ("key.revoked", second),
        ("key.restored", first),
    ]
