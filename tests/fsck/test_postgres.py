"""The same on PostgreSQL, where many processes write and streams have heads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from engine.clock import ManualClock, system_clock
from engine.db import patience
from engine.db.postgres import PostgresDatabase
from engine.fsck import check as checking
from engine.fsck import snapshot
from engine.fsck.check import check
from engine.fsck.snapshot import CannotRead
from engine.fsck.unchecked import NOTHING_CHECKS, NOTHING_MISSES, ONLY_THE_CHAIN_CHECKS
from tests.cli.processes import called, one_line
from tests.fsck.copies import Copy, delete
from tests.fsck.story import tell
from tests.fsck.test_every_cell import TABLES, names, unnoticed
from tests.servers import PostgresServer
from tests.world import World

UNNOTICED = {*NOTHING_CHECKS, *ONLY_THE_CHAIN_CHECKS}


@dataclass(frozen=True)
class Shared:
    """A database in which the story was told, and a connection that may change it."""

    url: str
    copy: Copy


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Shared]:
    """The story on PostgreSQL."""
    directory = tmp_path_factory.mktemp("fsck") / "data"
    clock = ManualClock(system_clock())
    with postgres.database() as url:
        world = World(directory, clock, database=url, kek="the same for every server")
        try:
            tell(world, clock)
        finally:
            world.engine.close()
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
        copy = Copy(sa.create_engine(address))
        yield Shared(url, copy)
        copy.close()


def test_nothing_is_found_in_the_story(shared: Shared) -> None:
    report = check(shared.url, patience_s=0)
    assert report.findings == ()
    assert report.size == report.records
    assert {name for name, of in TABLES.items() if not shared.copy.rows(of)} == set()


@pytest.mark.parametrize("table", sorted(SQLModel.metadata.tables)[::3])
def test_a_change_of_the_last_rows_is_found(shared: Shared, table: str, every: bool) -> None:
    """In one column of some tables, or in every column; and a row that is gone is missed."""
    of = TABLES[table]
    rows = shared.copy.rows(of)
    names_of = (column.name for column in of.columns)
    checked = [name for name in names_of if f"{table}.{name}" not in UNNOTICED]
    columns = None if every else checked[-1:]
    missed = unnoticed(shared.copy, of, rows[-2:], every=False, columns=columns)
    assert {name: told for name, told in missed.items() if f"{table}.{name}" not in UNNOTICED} == {}
    with shared.copy.changed(delete(of, rows[-1])) as found:
        assert found is not None
        assert names(found, of, rows[-1:]) or table in NOTHING_MISSES


def test_a_database_that_is_away_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match="cannot be read"):
        check(f"postgresql://nobody@/nothing?host={tmp_path}")


def test_one_whose_tables_somebody_keeps_is_given_up_in_one_line(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STATEMENT_TIMEOUT_MS", 500)
    with psycopg.connect(shared.url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
        checking = threads.submit(called, "fsck", database=shared.url)
        wait([checking], timeout=60)
        other.rollback()
        line = one_line(checking.result(), 4)
    assert line.startswith("cannot_read: the ledger cannot be read: ")
    assert "lock timeout" in line


@pytest.mark.parametrize("from_the_beginning", [True, False])
def test_one_that_stalls_is_given_up_in_one_line(
    monkeypatch: pytest.MonkeyPatch, *, from_the_beginning: bool
) -> None:
    monkeypatch.setattr(snapshot, "CHECK_S", 1)
    monkeypatch.setitem(patience.NETWORK, "connect_timeout", 2)
    stalled, check_batches = ExitStack(), checking.check_batches

    def stall(*given: Any) -> int:
        stalled.enter_context(server.stalled())
        return check_batches(*given)

    with PostgresServer() as server, server.database() as url, ThreadPoolExecutor(1) as threads:
        PostgresDatabase(url).close()
        with stalled:
            if from_the_beginning:
                stalled.enter_context(server.stalled())
            else:
                monkeypatch.setattr(checking, "check_batches", stall)
            line = one_line(threads.submit(called, "fsck", database=url).result(60), 4)
        assert line.startswith("cannot_read: the ledger cannot be read: ")
        assert ("said nothing for too long" in line) is not from_the_beginning
