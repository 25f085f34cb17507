"""An installation whose clock moves only when a test says so, and only forwards.

What a test asks for is run on every database there is, unless its file says `STORES = ("sqlite",)`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock
from tests.anvil_world import anvil_with_contracts
from tests.ledger.asking import START_MS
from tests.servers import PostgresServer
from tests.world import World

STORES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that opens an installation is one of each of its file's stores."""
    if "store" in metafunc.fixturenames:
        stores = getattr(metafunc.module, "STORES", STORES)
        metafunc.parametrize("store", stores, indirect=True, scope="module")


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest) -> str:
    """The name of the database that this test runs on."""
    return str(request.param)


@pytest.fixture(scope="module")
def clock(store: str) -> ManualClock:
    del store  # each starts with a clock of its own
    return ManualClock(START_MS)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, store: str, clock: ManualClock, postgres: Any
) -> Iterator[World]:
    """Shared by a file's tests, which make sessions of their own in it."""
    yield from opened(tmp_path_factory.mktemp("ledger") / "data", store, clock, postgres)


@pytest.fixture
def fresh(tmp_path: Path, store: str, postgres: Any) -> Iterator[World]:
    """For one test alone; its clock is `fresh.clock`."""
    yield from opened(tmp_path / "data", store, ManualClock(START_MS), postgres)


@pytest.fixture(scope="module")
def pair(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, World]]:
    """Two engines on one database."""
    directory = tmp_path_factory.mktemp("pair")
    with anvil_with_contracts() as anvil, postgres.database() as url:
        given = {"database": url, "kek": "the same for every server"}
        with (
            anvil.world(directory / "0", **given) as first,
            anvil.world(directory / "1", **given) as second,
        ):
            yield first, second


def opened(
    directory: Path, store: str, clock: ManualClock, postgres: PostgresServer
) -> Iterator[World]:
    """An installation on one of the databases, closed in the end."""
    if store == "sqlite":
        world = World(directory, clock)
        yield world
        world.engine.close()
        return
    with postgres.database() as url:
        world = World(directory, clock, database=url, kek="the same for every server")
        yield world
        world.engine.close()
