"""A store of each kind for every test that asks for one."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock, system_clock
from engine.storage.session import Session, Storage
from tests.servers import PATIENCE_S, PostgresServer, ValkeyServer
from tests.storage.stores import KINDS, new_payer, open_storage

Open = Callable[..., Storage]


@pytest.fixture
def anyio_backend() -> str:
    """The loop that async tests run on."""
    return "asyncio"


@pytest.fixture(scope="package")
def storage_database(postgres: PostgresServer) -> Iterator[str]:
    """The URI of a database for all tests of stores; each has payers of its own."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="package")
def valkey_cluster() -> Iterator[ValkeyServer]:
    """A cluster of one server: it refuses what would not work with more."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        bus = probe.getsockname()[1]
    settings = {"cluster-enabled": "yes", "cluster-port": str(bus)}
    with ValkeyServer(settings=settings) as server:
        client = server.client()
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + PATIENCE_S
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.02)
        client.close()
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """Every kind of store."""
    return request.param


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of this kind is."""
    match kind:
        case "postgres":
            return str(request.getfixturevalue("storage_database"))
        case "valkey":
            return str(request.getfixturevalue("valkey_server").url)
        case "valkey-cluster":
            return str(request.getfixturevalue("valkey_cluster").url)
    return str(tmp_path / "storage.sqlite3")


@pytest.fixture
def clock() -> ManualClock:
    """A clock for stores. Servers have their own besides, so it begins now."""
    return ManualClock(system_clock())


@pytest.fixture
async def open_store(kind: str, place: str, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens the test's store, with what the test wants of it."""
    opened = []

    def open_it(**options: Any) -> Storage:
        opened.append(open_storage(kind, place, **{"clock": clock, **options}))
        return opened[-1]

    yield open_it
    for storage in opened:
        await storage.close()


@pytest.fixture
def storage(open_store: Open) -> Storage:
    """The test's store as it is by default, where nothing ends."""
    return open_store()


@pytest.fixture
def session(storage: Storage) -> Session:
    """Somebody's part of the test's store."""
    return storage.session(new_payer())
