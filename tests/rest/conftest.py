"""Served installations: one that the tests of a file share, and one that a test may break."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.rest.lean_payments import LeanPayments
from tests.rest.served import Served
from tests.rest.twins import Twins

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


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Shared: what is done to one is done to the other."""
    with Twins(tmp_path_factory.mktemp("twins")) as opened:
        yield opened
        first, second = opened.records()
        assert first == second


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the short way has left to the routes."""
    found: list[bytes] = []
    leave = LeanPayments._leave

    def noted(connection: LeanPayments, data: bytes) -> None:
        found.append(data)
        leave(connection, data)

    monkeypatch.setattr(LeanPayments, "_leave", noted)
    return found


@pytest.fixture
def own_twins(tmp_path: Path) -> Iterator[Twins]:
    """Two that a test may break."""
    with Twins(tmp_path) as opened:
        yield opened
