"""Statements that go to PostgreSQL together: all of them or none, and whoever waits hears why."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from engine.db import patience
from engine.db.pipeline import BEGIN, COMMIT, Pipeline, Statement
from tests.servers import PostgresServer

INSERT = "INSERT INTO kept (id, body, told) VALUES ($1, $2, $3)"
LONG = bytes(range(256)) * 4_096


@pytest.fixture
def connection(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with postgres.connect() as connection:
        connection.execute("CREATE TEMP TABLE kept (id bigint PRIMARY KEY, body bytea, told text)")
        yield connection


def stored(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT id, body, told FROM kept ORDER BY id").fetchall()


def test_each_statement_sees_those_before_it_and_says_what_it_found(
    connection: psycopg.Connection[Any],
) -> None:
    rows = [(1, b"\0\xff\\x", "ü '{\\"), (2**62, LONG, "x" * 1_000_000), (-3, None, None)]
    chosen = Statement("SELECT id, told FROM kept WHERE id = ANY($1) ORDER BY id", [[1, -3, 7]])
    inserted = [Statement(INSERT, row) for row in rows]
    said = Pipeline(connection).run((BEGIN, *inserted, chosen, COMMIT))
    assert said == [[], [], [], [], [(-3, None), (1, "ü '{\\")], []]
    assert stored(connection) == sorted(rows)


def test_once_one_is_refused_nothing_is_committed_and_the_next_run_is_a_new_one(
    connection: psycopg.Connection[Any],
) -> None:
    pipeline = Pipeline(connection)
    one, same = Statement(INSERT, (1, b"", "")), Statement(INSERT, (1, b"", ""))
    other = Statement("INSERT INTO kept (id) VALUES ($1)", (2,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        pipeline.run((BEGIN, one, same, other, COMMIT))
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INERROR
    connection.rollback()
    assert stored(connection) == []
    assert pipeline.run((BEGIN, one, other, COMMIT)) == [[], [], [], []]
    assert stored(connection) == [(1, b"", ""), (2, None, None)]


def test_what_cannot_be_sent_is_refused_before_anything_is(
    connection: psycopg.Connection[Any],
) -> None:
    pipeline = Pipeline(connection)
    with pytest.raises(psycopg.DataError, match="NUL"):
        pipeline.run((Statement(INSERT, (1, b"", "")), Statement(INSERT, (2, b"", "a\0b"))))
    assert stored(connection) == []
    pipeline.run((Statement(INSERT, (3, b"", "")),))
    assert stored(connection) == [(3, b"", "")]


def test_a_commit_that_commits_nothing_is_no_commit(
    connection: psycopg.Connection[Any],
) -> None:
    pipeline = Pipeline(connection)
    with pytest.raises(psycopg.errors.UniqueViolation):
        pipeline.run((BEGIN, Statement(INSERT, (1, b"", "")), Statement(INSERT, (1, b"", ""))))
    with pytest.raises(psycopg.OperationalError, match="failed before"):
        pipeline.run((COMMIT,))


def test_what_the_server_says_last_is_said(
    connection: psycopg.Connection[Any], postgres: PostgresServer
) -> None:
    pid = connection.info.backend_pid
    with ThreadPoolExecutor(1) as threads, postgres.connect() as other:
        asked = threads.submit(Pipeline(connection).run, (BEGIN, Statement("SELECT pg_sleep(60)")))
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        while not other.execute(sleeping, (pid,)).fetchone():
            assert not asked.done()
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.errors.AdminShutdown):
            asked.result(60)
    assert connection.closed


def test_a_lost_connection_is_closed_and_said(
    connection: psycopg.Connection[Any], postgres: PostgresServer
) -> None:
    pipeline = Pipeline(connection)
    with postgres.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        pipeline.run((Statement("SELECT 1"),))
    assert connection.closed


def test_who_is_not_answered_hears_so_and_the_connection_is_closed(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ANSWER_S", 0.5)
    with pytest.raises(psycopg.OperationalError, match="not answered in time"):
        Pipeline(connection).run((BEGIN, Statement("SELECT pg_sleep(20)"), COMMIT))
    assert connection.closed
