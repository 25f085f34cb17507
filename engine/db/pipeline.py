"""Statements that go to a PostgreSQL server together, and are waited for once.

This is libpq's pipeline mode (PostgreSQL manual, section 34.5). psycopg's own sends each statement
when it is asked to, and what it does around each takes longer than the server takes for it, which
a payment that is alone in its batch would wait for.
"""

import itertools
from collections.abc import Sequence
from select import POLLIN, POLLOUT, poll
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from engine.db import patience


class Statement(NamedTuple):
    """SQL with `$1`, `$2` … and their values.

    Each SQL is prepared once a connection, so there must not be many.
    """

    sql: str
    values: Sequence[Any] = ()


BEGIN, COMMIT = Statement("BEGIN"), Statement("COMMIT")


class Pipeline:
    """For a connection that is used by nobody else meanwhile."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._server = connection.pgconn
        self._prepared: dict[str, bytes] = {}
        self._names = itertools.count()
        self._ready = poll()
        self._ready.register(self._server.socket, POLLIN)

    def run(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run the statements one after the other; returns the rows of each.

        Once one is refused, those behind it are left out.

        Raises:
            psycopg.Error: one was refused, or the connection was lost: nobody knows then what
                became of them, and it is what the server said last, if it said anything.
        """
        transformer = Transformer(self.connection)
        prepared = {
            statement.sql: b"tallystick_%d" % next(self._names)
            for statement in statements
            if statement.sql not in self._prepared
        }
        names = self._prepared | prepared
        sent = []
        for sql, values in statements:
            # No types are told: a value is of the type that it is compared with or inserted as.
            formats = [PyFormat.BINARY if type(v) is bytes else PyFormat.TEXT for v in values]
            dumped = transformer.dump_sequence(values, formats)
            sent.append((names[sql], dumped, list(transformer.formats or ())))
        results: list[PGresult] = []
        try:
            self._server.enter_pipeline_mode()
            for sql, name in prepared.items():
                self._server.send_prepare(name, sql.encode())
            for name, dumped, wire_formats in sent:
                self._server.send_query_prepared(name, dumped, wire_formats)
            self._server.pipeline_sync()
            self._receive(results)
            self._server.exit_pipeline_mode()
        except BaseException as error:
            self.connection.close()  # answers that nobody waited for would be taken for others
            for result in reversed(results):
                if result.status == ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result) from error
            raise
        for result in results:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result)
        self._prepared = names
        results = results[len(prepared) :]
        for statement, result in zip(statements, results, strict=True):
            if statement == COMMIT and result.command_status != b"COMMIT":
                raise psycopg.OperationalError("the transaction had failed before its commit")
        rows: list[list[tuple[Any, ...]]] = []
        for result in results:
            transformer.set_pgresult(result)
            rows.append(transformer.load_rows(0, result.ntuples, tuple))
        return rows

    def _receive(self, results: list[PGresult]) -> None:
        """Append what the server answers up to the end of the pipeline.

        libpq would wait by itself, keep all other threads waiting with it, and do so for ever
        where the server stalls.
        """
        while True:
            while self._server.is_busy():
                unsent = self._server.flush()
                self._ready.modify(self._server.socket, POLLIN | POLLOUT if unsent else POLLIN)
                if not self._ready.poll(patience.ANSWER_S * 1_000):
                    raise patience.Silent("the server has not answered in time")
                self._server.consume_input()
            result = self._server.get_result()
            if result is None:  # the end of one statement's
                if self._server.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection was lost")
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                return
            results.append(result)
