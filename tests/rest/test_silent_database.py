"""A PostgreSQL that does not answer: it is said, and what needs no database goes on meanwhile."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.anvil_world import anvil_with_contracts, wait_until
from tests.rest.served import PAYMENTS, SESSIONS, Served, refused
from tests.servers import PostgresServer

KEK = "the same for every server"
READS = (PAYMENTS, SESSIONS, "/api/v1/budgets", "/api/v1/audit", "/api/v1/log/checkpoint")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One that a test may stop."""
    with PostgresServer() as started:
        yield started


@pytest.fixture
def api(server: PostgresServer, tmp_path: Path) -> Iterator[Served]:
    with (
        server.database() as url,
        Served(tmp_path / "data", database=url, kek=KEK) as served,
    ):
        yield served


def test_who_waits_for_the_database_keeps_nobody_else_waiting(
    api: Served, server: PostgresServer
) -> None:
    token = api.session()["session_token"]
    assert api.pay(token).status_code == 201  # recognised from here on
    name = api.world.settings.database
    assert name is not None
    with (
        psycopg.connect(name.get_secret_value()) as other,
        ThreadPoolExecutor() as threads,
        httpx.Client(base_url=api.url, timeout=30, trust_env=False) as client,
    ):
        # Whoever shows a key is looked up here; the lock is kept for as long as it takes.
        other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        begun = threading.Event()

        def listed() -> httpx.Response:
            begun.set()
            return client.get(PAYMENTS, headers={"Authorization": f"Bearer {api.key}"})

        waiting = threads.submit(listed)
        begun.wait()
        wait_until(lambda: _waits_for_a_lock(server))
        assert api.call("GET", "/healthz").status_code == 200
        assert api.pay(token).status_code == 201
        assert not waiting.done()
        other.rollback()
        assert waiting.result().status_code == 200


def _waits_for_a_lock(server: PostgresServer) -> bool:
    with server.connect() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return connection.execute(waiting).fetchone() != (0,)


def test_one_that_is_gone_is_said_everywhere_and_one_that_is_back_is_used(
    api: Served, server: PostgresServer
) -> None:
    session = api.session()
    token = session["session_token"]
    assert api.pay(token).status_code == 201
    server.kill()
    for path in READS:
        answer = api.get(path)
        refused(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    refused(api.pay(token), 503, "service_unavailable")
    told = api.call("GET", "/readyz")
    assert (told.status_code, told.json()["ready"]) == (503, False)
    assert "the database does not answer" in told.json()["faults"]
    assert api.call("GET", "/healthz").status_code == 200
    server.start()
    wait_until(lambda: api.call("GET", "/readyz").status_code == 200)
    assert api.pay(token).status_code == 201


def test_whoever_does_not_lead_is_ready_again_too(server: PostgresServer, tmp_path: Path) -> None:
    with ExitStack() as opened:
        anvil = opened.enter_context(anvil_with_contracts())
        given = {"database": opened.enter_context(server.database()), "kek": KEK}
        worlds = [opened.enter_context(anvil.world(tmp_path / each, **given)) for each in "ab"]
        engines = [world.engine for world in worlds]
        for engine in engines:
            engine.start()
        server.kill()
        for engine in engines:
            wait_until(lambda: engine.lead.chain_fault is not None)  # noqa: B023
            assert not engine.ready()["ready"]
        server.start()
        for engine in engines:
            wait_until(lambda: engine.ready()["ready"])  # noqa: B023
