"""One installation for the tests of the client, with a workspace for each."""

import itertools
from collections.abc import Iterator

import pytest

from tallystick import Client
from tests.rest.served import Served

WALLET = "0x" + "1" * 40

_tenants = itertools.count(1)


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Shared."""
    with Served(tmp_path_factory.mktemp("client") / "data") as opened:
        yield opened


@pytest.fixture
def tenant(served: Served) -> Served:
    """The shared one, in a workspace of the test's own."""
    return served.tenant(f"tenant-{next(_tenants)}")


@pytest.fixture
def client(tenant: Served) -> Iterator[Client]:
    """Its operator's."""
    with Client(tenant.url, api_key=tenant.key) as opened:
        yield opened
