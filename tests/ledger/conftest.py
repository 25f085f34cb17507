"""An installation whose clock moves only when a test says so, and only forwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.clock import ManualClock
from tests.ledger.asking import START_MS
from tests.world import World


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[World]:
    """Shared by a file's tests, which make sessions of their own in it."""
    opened = World(tmp_path_factory.mktemp("ledger") / "data", clock)
    yield opened
    opened.engine.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """For one test alone; its clock is `fresh.clock`."""
    opened = World(tmp_path / "data", ManualClock(START_MS))
    yield opened
    opened.engine.close()
