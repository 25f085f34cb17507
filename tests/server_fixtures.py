"""Fixtures with real servers, as a pytest plugin: `pytest_plugins = ["tests.server_fixtures"]`.

A server starts when the first test asks for it and serves the whole run, so a test that stops or
kills one makes its own, from `tests.servers`.
"""

from collections.abc import Iterator

import pytest

from tests.servers import PostgresServer, ValkeyServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL, shared by the whole run."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URI of an empty database that only this test uses."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """Valkey with `appendfsync always`, shared by the whole run."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The URI of the shared Valkey, empty when the test begins."""
    client = valkey_server.client()
    client.flushall()
    client.close()
    return valkey_server.url
