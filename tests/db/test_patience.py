"""A PostgreSQL server that says nothing is given up in time; one that others keep busy is not."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from engine.db import patience
from engine.db.patience import NETWORK, PatientConnection
from engine.db.postgres import PostgresDatabase
from engine.errors import Unavailable
from tests.anvil_world import wait_until
from tests.servers import PostgresServer


@pytest.fixture
def connection(postgres: PostgresServer) -> Iterator[PatientConnection]:
    with PatientConnection.connect(postgres.url(), autocommit=True) as connection:
        yield connection


def test_one_that_says_nothing_is_given_up(connection: PatientConnection) -> None:
    connection.patience_s = 0.5
    with pytest.raises(psycopg.OperationalError, match="said nothing for too long"):
        connection.execute("SELECT pg_sleep(20)")
    assert connection.closed


def test_one_that_says_something_now_and_then_is_heard_out(
    connection: PatientConnection,
) -> None:
    connection.patience_s = 1
    # Each row is more than the server keeps back.
    query = "SELECT repeat('x', 20000), pg_sleep(0.3) FROM generate_series(1, 6)"
    assert len(connection.execute(query).fetchall()) == 6


def test_one_that_cannot_be_reached_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORK, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as threads:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        connecting = threads.submit(PatientConnection.connect, url)
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            connecting.result(60)


def test_a_url_has_the_last_word(postgres: PostgresServer) -> None:
    url = f"{postgres.url()}&keepalives_idle=77"
    with PatientConnection.connect(url) as connection:
        used = connection.info.get_parameters()
    assert {name: used[name] for name in NETWORK} == {
        **{name: str(value) for name, value in NETWORK.items()},
        "keepalives_idle": "77",
    }


def test_a_reader_has_as_long_as_a_statement_may_take_and_is_looked_for_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(NETWORK, "connect_timeout", 2)
    monkeypatch.setattr(patience, "BRIEF_S", 1)
    monkeypatch.setattr(patience, "ANSWER_S", 300)

    def read(seconds: float) -> None:
        with database.reading() as connection:
            connection.exec_driver_sql(f"SELECT pg_sleep({seconds})")

    with PostgresServer() as server, server.database() as url, ThreadPoolExecutor(1) as threads:
        database = PostgresDatabase(url)
        read(3)
        with server.stalled():
            unheard = threads.submit(read, 0)
            with pytest.raises(Unavailable, match="does not answer"):
                unheard.result(60)
        database.close()


def test_who_sets_an_installation_up_waits_for_as_long_as_another_does(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = PostgresDatabase(database_url)
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = %s "
        "AND clock_timestamp() - state_change > interval '2 seconds'"
    )

    def set_up() -> bool:
        with database.starting():
            return True

    with ThreadPoolExecutor(1) as threads, postgres.connect() as looking:
        with database.starting(), monkeypatch.context() as hasty:
            hasty.setattr(patience, "ANSWER_S", 1)
            second = threads.submit(set_up)
            name = (psycopg.conninfo.conninfo_to_dict(database_url)["dbname"],)
            wait_until(lambda: second.done() or looking.execute(waits, name).fetchone() is not None)
            assert not second.done()
        assert second.result(60)
    database.close()
