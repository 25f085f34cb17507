"""Served installations: one that the tests of a file share, and one that a test may break."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rest.served import Served

_tenants = itertools.count(1)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Shared: leave it usable."""
    with Served(tmp_path_factory.mktemp("api") / "data") as served:
        yield served


@pytest.fixture
def tenant(api: Served) -> Served:
    """The shared one, in a workspace of the test's own."""
    return api.tenant(f"tenant-{next(_tenants)}")


@pytest.fixture
def own_api(tmp_path: Path) -> Iterator[Served]:
    """A fresh one."""
    with Served(tmp_path / "data") as served:
        yield served
