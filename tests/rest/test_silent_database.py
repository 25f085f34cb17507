"""A PostgreSQL that does not answer: it is said, and what needs no database goes on meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
import sqlalchemy as sa
import structlog

from api.rest import readiness
from engine.db import patience
from engine.engine import Engine
from tests.anvil_world import anvil_with_contracts, wait_until
from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served, refused
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


@pytest.fixture
def on_the_loop(api: Served, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each read of the database whether everybody else waited for it."""
    database = api.world.engine.database
    reading, found = database.reading, list[bool]()

    @contextlib.contextmanager
    def noted() -> Iterator[sa.Connection]:
        found.append(asyncio._get_running_loop() is not None)
        with reading() as connection:
            yield connection

    monkeypatch.setattr(database, "reading", noted)
    return found


@contextlib.contextmanager
def locked(
    api: Served,
    server: PostgresServer,
    table: str,
    ask: Callable[[httpx.Client], httpx.Response],
    query: str = "",
) -> Iterator["Future[httpx.Response]"]:
    """What is asked, and waits for this table by now, with this in its query."""
    name = api.world.settings.database
    assert name is not None
    with (
        psycopg.connect(name.get_secret_value()) as other,
        ThreadPoolExecutor() as threads,
        httpx.Client(base_url=api.url, timeout=30, trust_env=False) as client,
    ):
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        waiting = threads.submit(ask, client)
        wait_until(lambda: _waits_for(server, f"FROM {table}%{query}"))
        yield waiting
        other.rollback()
        waiting.result()


def _waits_for(server: PostgresServer, query: str) -> bool:
    with server.connect() as connection:
        waiting = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND query LIKE %s",
            (f"%{query}%",),
        )
        return waiting.fetchone() != (0,)


def signed(api: Served) -> tuple[str, str]:
    """The token of a session, and where a payment is that it signed."""
    session = api.session(mint_pkp=True, user_wallet=api.world.owner.address)
    token: str = session["session_token"]
    body = {"amount": 1, "to": "0x" + "11" * 20}
    answer = api.call("POST", f"{SESSIONS}/self/execute", body, token=token)
    assert answer.status_code == 201, answer.text
    return token, f"{PAYMENTS}/{answer.json()['id']}"


def test_who_waits_for_the_database_keeps_nobody_else_waiting(
    api: Served, server: PostgresServer
) -> None:
    token = api.session()["session_token"]
    assert api.pay(token).status_code == 201  # recognised from here on

    def listed(client: httpx.Client) -> httpx.Response:
        return client.get(PAYMENTS, headers={"Authorization": f"Bearer {api.key}"})

    with locked(api, server, "api_keys", listed) as waiting:  # where who shows a key is looked up
        assert api.call("GET", "/healthz").status_code == 200
        assert api.pay(token).status_code == 201
        assert not waiting.done()
    assert waiting.result().status_code == 200


def test_who_looks_at_a_payment_keeps_nobody_else_waiting(
    api: Served, server: PostgresServer
) -> None:
    token, path = signed(api)

    def looked(client: httpx.Client) -> httpx.Response:
        return client.get(path, headers={"X-Session-Token": token})

    with locked(api, server, "settlements", looked, "(settlements.session_id, %) IN") as waiting:
        assert api.call("GET", "/healthz").status_code == 200
        assert not waiting.done()
    assert waiting.result().status_code == 200


def test_nothing_of_a_payment_is_read_on_the_event_loop(
    api: Served, on_the_loop: list[bool]
) -> None:
    token, path = signed(api)
    on_the_loop.clear()
    answer = api.call("GET", path, token=token).json()
    assert answer["state"] == "held"
    assert answer["settlement"] is not None
    assert on_the_loop
    assert True not in on_the_loop


@pytest.mark.parametrize("path", [PAYMENTS, SMART])
def test_who_comes_with_a_new_token_keeps_nobody_else_waiting(
    api: Served, server: PostgresServer, on_the_loop: list[bool], path: str
) -> None:
    token = api.session()["session_token"]
    on_the_loop.clear()

    def paid(client: httpx.Client) -> httpx.Response:
        if path == PAYMENTS:
            return client.post(path, json={"amount": 1}, headers={"X-Session-Token": token})
        body = {"amount_usd": 1, "session_token": token}
        return client.post(path, json=body, headers={"Authorization": f"Bearer {api.key}"})

    with locked(api, server, "sessions", paid, "sessions.secret_hash =") as waiting:
        assert api.call("GET", "/healthz").status_code == 200
        assert not waiting.done()
    assert waiting.result().is_success
    assert True not in on_the_loop  # nor until the lock was given up


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
    assert told.json()["faults"] == ["the database does not answer"]
    assert api.call("GET", "/healthz").status_code == 200
    server.start()
    wait_until(lambda: api.call("GET", "/readyz").status_code == 200)
    assert api.pay(token).status_code == 201


@contextlib.contextmanager
def both_started(server: PostgresServer, tmp_path: Path) -> Iterator[list[Engine]]:
    """Two engines on one database, of which one leads."""
    with ExitStack() as opened:
        anvil = opened.enter_context(anvil_with_contracts())
        given = {"database": opened.enter_context(server.database()), "kek": KEK}
        worlds = [opened.enter_context(anvil.world(tmp_path / each, **given)) for each in "ab"]
        engines = [world.engine for world in worlds]
        for engine in engines:
            engine.start()
        yield engines


def test_whoever_does_not_lead_is_ready_again_too(server: PostgresServer, tmp_path: Path) -> None:
    with both_started(server, tmp_path) as engines:
        server.kill()
        for engine in engines:
            wait_until(lambda: engine.lead.database_silent)  # noqa: B023
            assert engine.ready()["faults"] == ["the database does not answer"]
        server.start()
        for engine in engines:
            wait_until(lambda: engine.ready()["ready"])  # noqa: B023


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    server: PostgresServer, tmp_path: Path
) -> None:
    with both_started(server, tmp_path) as engines, structlog.testing.capture_logs() as said:
        for _ in range(2):
            server.kill()
            for engine in engines:
                wait_until(lambda: engine.lead.database_silent)  # noqa: B023
            for _ in range(20):
                for engine in engines:
                    assert engine.ready()["faults"] == ["the database does not answer"]
                time.sleep(0.1)
            server.start()
            for engine in engines:
                wait_until(lambda: engine.ready()["ready"])  # noqa: B023
                wait_until(lambda: not engine.lead.database_silent)  # noqa: B023
    told = [line["event"] for line in said]
    assert told.count("database_silent") == told.count("database_heard") == 4
    assert not {"batch_abandoned", "tick_failed", "chain_silent", "chain_heard"}.intersection(told)
    assert told.count("not_done") <= 2 * 2 * 2, "whatever else was just being done"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up sooner than one would."""
    monkeypatch.setattr(patience, "ANSWER_S", 3)
    monkeypatch.setattr(patience, "BRIEF_S", 2)
    monkeypatch.setitem(patience.NETWORK, "connect_timeout", 2)


@pytest.mark.usefixtures("hasty")
def test_one_that_stalls_is_said_everywhere_and_one_that_goes_on_is_used(
    api: Served, server: PostgresServer
) -> None:
    token = api.session()["session_token"]
    assert api.pay(token).status_code == 201
    asked = {"headers": {"Idempotency-Key": "once"}}
    with server.stalled():
        refused(api.pay(token, **asked), 503, "service_unavailable")
        for path in READS:
            refused(api.get(path), 503, "database_unavailable")
        refused(api.pay(token, **asked), 503, "service_unavailable")
        told = api.call("GET", "/readyz")
        assert (told.status_code, told.json()["ready"]) == (503, False)
        assert "the database does not answer" in told.json()["faults"]
        assert api.call("GET", "/healthz").status_code == 200
    wait_until(lambda: api.call("GET", "/readyz").status_code == 200)
    before = api.get(PAYMENTS).json()["pagination"]["total"]
    assert api.pay(token, **asked).status_code == 201
    assert api.pay(token, **asked).headers["Idempotent-Replayed"] == "true"
    assert api.get(PAYMENTS).json()["pagination"]["total"] <= before + 1


def test_readiness_is_told_in_time_whoever_else_waits(
    api: Served, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.call("GET", "/readyz").status_code == 200
    monkeypatch.setattr(readiness, "READY_S", 0.5)
    monkeypatch.setattr(patience, "BRIEF_S", 300)
    monkeypatch.setitem(patience.NETWORK, "connect_timeout", 300)
    with server.stalled():
        told = api.call("GET", "/readyz")
        assert (told.status_code, told.json()["ready"]) == (503, False)
        assert told.json()["faults"] == ["the database does not answer"]
    monkeypatch.setattr(readiness, "READY_S", 30)
    wait_until(lambda: api.call("GET", "/readyz").status_code == 200)


@pytest.mark.usefixtures("hasty")
def test_after_a_stall_one_leads(server: PostgresServer, tmp_path: Path) -> None:
    with both_started(server, tmp_path) as engines:

        def leaders() -> int:
            return [engine.lead.leads for engine in engines].count(True)

        wait_until(lambda: leaders() == 1)
        with server.stalled():
            wait_until(lambda: leaders() == 0)
        for engine in engines:
            wait_until(lambda: engine.ready()["ready"])  # noqa: B023
        wait_until(lambda: leaders() == 1)
