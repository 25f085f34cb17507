"""SIGKILL at every statement of a migration, on both databases: all of it happens or none."""

import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.db.migrate import NEWEST
from engine.db.postgres import PostgresDatabase
from engine.errors import Unavailable
from tests.anvil_world import PATIENCE_S, wait_until
from tests.durability.killed_migration import MIGRATIONS, die, release
from tests.durability.processes import forked
from tests.ledger.asking import START_MS
from tests.ledger.oracle import Records, query, read_records
from tests.world import WORKSPACE, World

PLACES_MAX = 400
KEK = "the same for every server"
NEXT = '''
"""A second schema that changes rows, columns and tables, as one may come."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "{newest}"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("region", sa.Text(), nullable=True))
    op.execute("UPDATE workspaces SET region = 'somewhere'")
    op.create_table("regions", sa.Column("id", sa.Text(), primary_key=True))
    op.execute("INSERT INTO regions SELECT DISTINCT region FROM workspaces")
    op.create_index("workspaces_by_region", "workspaces", ["region"])
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the ledger of an installation in `tmp_path / "data"` is; nothing is there yet."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("database_url"))
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data" / "ledger.sqlite3"


def installation(tmp_path: Path, store: Path | str) -> World:
    changes = {"database": store, "kek": KEK} if isinstance(store, str) else {}
    return World(tmp_path / "data", ManualClock(START_MS), **changes)


def stored(store: Path | str) -> dict[str, tuple[list[Any], list[str]]]:
    """All tables with their columns and rows."""
    if isinstance(store, Path):
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        columns = "SELECT name FROM pragma_table_info(?)"
    else:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = ?"
    return {
        name: (
            sorted(query(store, columns, name)),
            sorted(map(repr, query(store, f'SELECT * FROM "{name}"'))),
        )
        for (name,) in query(store, tables)
    }


def next_release(tmp_path: Path) -> Path:
    """Its migrations, as `release` takes them."""
    releases = tmp_path / "next"
    shutil.copytree(MIGRATIONS, releases / "migrations")
    (releases / "migrations" / "versions" / "0002_next.py").write_text(NEXT.format(newest=NEWEST))
    return releases


def killed_everywhere(
    store: Path | str, releases: Path | None = None, step: int = 1
) -> tuple[int, list[Any]]:
    """Be killed at the first statement, the next … until it is done; what was found between."""
    between: list[Any] = []
    for place in range(1, PLACES_MAX, step):
        process = forked().Process(target=die, args=(store, place, releases))
        process.start()
        process.join()
        if process.exitcode == 0:
            return place, between
        assert process.exitcode == -signal.SIGKILL
        found = stored(store) if isinstance(store, str) or store.exists() else {}
        if found not in between:
            between.append(found)
    raise AssertionError("it never ends")


def test_a_first_start(tmp_path: Path, store: Path | str) -> None:
    # Some of its many statements; of the next release below, every one.
    places, between = killed_everywhere(store, step=2 if isinstance(store, Path) else 7)
    assert places > 25
    whole = stored(store)
    assert len(whole) > 15
    assert [sorted(found) for found in between if found != whole] in (
        [[]],
        [[], ["alembic_version"]],
    )
    world = installation(tmp_path, store)
    assert world.pay(world.session(), 1).state == "captured"
    world.engine.close()


def test_a_start_of_the_next_release(tmp_path: Path, store: Path | str) -> None:
    world = installation(tmp_path, store)
    view = world.session()
    paid = [world.pay(view, dollars, hold=dollars == 2, key=f"{dollars}") for dollars in (1, 2, 3)]
    world.engine.tick(anchor=True)
    world.engine.close()
    before, records = stored(store), read_records(store)
    releases = next_release(tmp_path)
    places, between = killed_everywhere(store, releases)
    assert places > 8
    after = stored(store)
    assert before in between
    assert [found for found in between if found not in (before, after)] == []
    assert after["alembic_version"][1] == ["('0002',)"]
    assert after["regions"][1] == ["('somewhere',)"]
    assert read_records(store) == records
    Records().feed(records)
    with release(releases):
        world = installation(tmp_path, store)
    for dollars, first in enumerate(paid, 1):
        again = world.pay(view, dollars, hold=first.state == "held", key=f"{dollars}")
        assert (again.id, again.replayed) == (first.id, True)
    world.engine.close()


def test_a_process_of_the_release_before_stops_when_the_next_one_opens_the_database(
    tmp_path: Path, database_url: str
) -> None:
    before = World(tmp_path / "before", database=database_url, kek=KEK)
    view = before.session()
    paid = before.pay(view, 1, key="k")
    with release(next_release(tmp_path)):
        PostgresDatabase(database_url).close()
    for key in ("k", "other"):
        with pytest.raises(Unavailable, match="newer release"):
            before.pay(view, 1, key=key)
    with pytest.raises(Unavailable, match="newer release"):
        before.engine.revoke_session(WORKSPACE, view.id, by="test")
    assert before.engine.ready()["faults"]
    assert query(database_url, "SELECT number FROM decisions") == [(paid.number,)]
    before.engine.close()


def test_the_next_release_waits_for_a_batch_of_the_one_before(
    tmp_path: Path, database_url: str
) -> None:
    before = World(tmp_path / "before", database=database_url, kek=KEK)
    view = before.session()
    deciding, go_on = threading.Event(), threading.Event()

    def slow(_batch: object) -> None:
        deciding.set()
        assert go_on.wait(PATIENCE_S)

    def open_next() -> None:
        with release(next_release(tmp_path)):
            PostgresDatabase(database_url).close()

    asked = before.engine.writer.submit(slow, view.id)
    assert deciding.wait(PATIENCE_S)
    opening = threading.Thread(target=open_next)
    opening.start()
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    wait_until(lambda: bool(query(database_url, waiting)))
    assert query(database_url, "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    go_on.set()
    asked.result(PATIENCE_S)
    opening.join()
    assert query(database_url, "SELECT version_num FROM alembic_version") == [("0002",)]
    before.engine.close()
