"""One installation for all tests of a file, and one for those that would spoil it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation that the tests of one file share; each has sessions of its own."""
    opened = World(tmp_path_factory.mktemp("shared") / "data")
    yield opened
    opened.engine.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A fresh installation, to be closed, started or put ahead of time."""
    opened = World(tmp_path / "data")
    yield opened
    opened.engine.close()
