"""PostgreSQL: one database that any number of processes write to at once.

Whoever appends to streams holds their rows in `stream_heads`, in the order of their ids, until its
transaction ends; nothing else is locked, so processes are in each other's way only where they mean
the same session. Time is the database's. One process leads, by an advisory lock, and speaks for
all: it follows the chain and anchors. Giving records their place in the log is guarded by another
lock, because a leader that lost its connection may not know yet that it is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from engine.audit.record import Head
from engine.db import patience
from engine.db.database import BUDGETS, ChainReading, Turn, of_its_rows
from engine.db.inserts import Inserts
from engine.db.migrate import migrate
from engine.db.patience import LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, PatientConnection
from engine.db.pipeline import BEGIN, COMMIT, Pipeline, Statement
from engine.errors import CannotStart, Unavailable

VERSION_MIN = 140_000
"""PostgreSQL 14, as `server_version_num` counts."""
STATEMENTS_TOGETHER = 64
"""So many at most are sent before the server has answered: what they hold is in memory twice."""

# The keys of the advisory locks, "TLST" and what each is for.
_LOCKS = 0x544C5354
_STARTING, _SEQUENCING, _LEADING, _BUDGETS = 1, 2, 3, 4

_CONTENDED = ("40001", "40P01", "55P03", "23505")
"""Serialization failure, deadlock, lock timeout, and a row that somebody else made first."""
_LASTING = ("XX", "58")
"""Data or index corrupted, and system errors such as a failed write."""

_HOLD = """
    SELECT id, seq, prev, time_ms FROM stream_heads WHERE id = ANY($1) ORDER BY id FOR UPDATE
"""
_NUMBER = Statement("""
    SELECT nextval('log_batch_ids'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
           budgets_version, time_ms, read_ms, (SELECT max(version_num) FROM alembic_version),
           fault, doubt, doubt_code
    FROM shared
""")
_ADVANCE = """
    INSERT INTO stream_heads (id, seq, prev, time_ms)
    SELECT id, seq, prev, $1 FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS t (id, seq, prev)
    ON CONFLICT (id) DO UPDATE
    SET seq = excluded.seq, prev = excluded.prev, time_ms = excluded.time_ms
"""


class PostgresDatabase:
    """A PostgreSQL database, as a `Database` that many processes share."""

    shared = True

    def __init__(self, url: str) -> None:
        """Connect, look at the server's settings and bring the schema up to date.

        Raises:
            CannotStart: it cannot be reached, would lose commits, is another program's database, or
                of a newer release.
        """
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._pipeline: Pipeline | None = None
        options: dict[str, Any] = {
            "application_name": "tallystick",
            "options": (
                f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
                "-c idle_in_transaction_session_timeout=60000 -c synchronous_commit=on "
                "-c timezone=UTC -c search_path=public"
            ),
        }
        self._conninfo = address.set(drivername="postgresql").render_as_string(hide_password=False)
        self._options = options
        # psycopg would say BEGIN in a round trip of its own; said by us it goes with the next one.
        self._writing = sa.create_engine(
            address,
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # what is stored is nobody's business in a log
            connect_args=options,
        )
        self._inserts = Inserts(self._writing.dialect, "${}".format)
        sa.event.listen(self._writing, "do_connect", _connect_patiently)
        sa.event.listen(self._writing, "rollback", self._forget_prepared)
        self._reading = sa.create_engine(
            address,
            poolclass=QueuePool,
            pool_size=4,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=options,
        )
        sa.event.listen(self._reading, "do_connect", _connect_patiently)
        sa.event.listen(self._reading, "connect", _be_brief)
        sa.event.listen(self._reading, "begin", _read_only)
        self._leading: PatientConnection | None = None
        try:
            with self.starting():
                self._check()
                self._migrate()
            self.writer = self._writing.connect()
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            self._writing.dispose()
            raise CannotStart(
                f"TALLYSTICK_DATABASE cannot be used: {getattr(error, 'orig', error)}"
            ) from error
        except CannotStart:
            self._writing.dispose()
            raise

    def _check(self) -> None:
        """Look before anything is written."""
        with self._connect() as connection:
            shown = {
                name: str(_value(connection, f"SHOW {name}"))
                for name in ("server_version_num", "fsync", "full_page_writes", "server_encoding")
            }
            if int(shown["server_version_num"]) < VERSION_MIN:
                raise CannotStart("TALLYSTICK_DATABASE is older than PostgreSQL 14")
            for name in ("fsync", "full_page_writes"):
                if shown[name] != "on":
                    raise CannotStart(
                        f"TALLYSTICK_DATABASE has {name} = {shown[name]}: a power cut would lose "
                        f"decisions that were answered; set {name} = on"
                    )
            if shown["server_encoding"] != "UTF8":
                raise CannotStart("TALLYSTICK_DATABASE is not encoded in UTF8")
            if _value(connection, "SELECT pg_is_in_recovery()"):
                raise CannotStart("TALLYSTICK_DATABASE is a standby, which cannot be written to")
            ours = _value(connection, "SELECT to_regclass('alembic_version') IS NOT NULL")
            tables = _value(
                connection, "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
            )
            if tables and not ours:
                raise CannotStart("TALLYSTICK_DATABASE is not a Tallystick database")

    def _migrate(self) -> None:
        with self._writing.connect().execution_options(
            isolation_level="READ COMMITTED"
        ) as connection:
            self._version = migrate(connection, "TALLYSTICK_DATABASE", self._alone)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let those of the release before finish their batches, and have them begin no other."""
        with self._connect() as connection:
            _wait_and_lock(connection, _BUDGETS)
            yield

    def begin(self, streams: Sequence[str]) -> Turn:
        """Hold these streams; the clock is read and the batch numbered once that is so."""
        # Whoever changes budgets is alone: a payment decided under the old ones that commits after
        # the change would not be counted under the new.
        alone = "" if BUDGETS in streams else "_shared"
        lock = f"SELECT pg_advisory_xact_lock{alone}({_LOCKS}, {_BUDGETS})"
        # The last is its own: what stands in a statement that waits for a lock is from before that.
        statements = (BEGIN, Statement(lock), Statement(_HOLD, [list(streams)]), _NUMBER)
        _, _, held, numbered = self._run(statements)
        heads = dict.fromkeys(streams, Head())
        last_ms = 0
        for stream, seq, prev, time_ms in held:
            heads[stream] = Head(seq, prev)
            last_ms = max(last_ms, time_ms)
        number = numbered[0]
        batch, now_ms, budgets_version, chain_ms, read_ms, version, fault, message, code = number
        if version != self._version:
            fault = "TALLYSTICK_DATABASE was opened by a newer release: start that one here, too"
        why = None if message is None else Unavailable(message, code=code)
        reading = ChainReading(chain_ms, read_ms, why, fault)
        return Turn(batch, heads, last_ms, now_ms, budgets_version, reading)

    def finish(
        self,
        rows: Mapping[sa.Table, Sequence[dict[str, Any]]],
        heads: Mapping[str, Head],
        now_ms: int,
    ) -> None:
        """Insert what is left, and tell whoever holds these streams next where they end.

        They go to the server with the commit behind them and are waited for once, unless they are
        very many. If one is refused the server leaves the commit out.
        """
        last = self._insert(rows)
        if heads:
            ids = sorted(heads)
            ends = [heads[stream] for stream in ids]
            seqs, prevs = [end.seq for end in ends], [end.prev for end in ends]
            last.append(Statement(_ADVANCE, (now_ms, ids, seqs, prevs)))
        self._run([*last, COMMIT])

    def sequencing(self) -> None:
        """Wait for whoever gives records their place now."""
        with self._driver() as driver:
            driver.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCKS, _SEQUENCING))

    def insert_many(self, into: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows that all have the same columns, in the writer's transaction."""
        self._run(self._insert({into: rows}))

    def _insert(self, rows: Mapping[sa.Table, Sequence[dict[str, Any]]]) -> list[Statement]:
        return [
            Statement(*each)
            for into, values in rows.items()
            for each in self._inserts.statements(into, values)
        ]

    def tidy(self) -> str | None:
        """The server does so by itself."""
        return None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one consistent, committed state and cannot write.

        Raises:
            Unavailable: the server does not answer, or not in time.
        """
        try:
            with self._reading.connect() as connection, connection.begin():
                driver: Any = connection.connection.driver_connection
                driver.patience_s = patience.ANSWER_S
                try:
                    yield connection
                finally:
                    driver.patience_s = patience.BRIEF_S
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            if isinstance(error, sa.exc.DBAPIError) and of_its_rows(error):
                raise
            silent = "the database does not answer"
            raise Unavailable(silent, code="database_unavailable") from error

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Be the only process that sets the installation up; others wait.

        Raises:
            CannotStart: the server cannot be reached, or goes away meanwhile.
        """
        try:
            with self._connect() as connection:
                _wait_and_lock(connection, _STARTING)
                yield
        except psycopg.Error as error:
            raise CannotStart(f"TALLYSTICK_DATABASE cannot be used: {error}") from error

    def leads(self) -> bool:
        """Whether this process leads, or does from now on because nobody does.

        The lock is held by a connection of its own, and lost with it.
        """
        try:
            if self._leading is None:
                self._leading = self._connect()
                self._leading.patience_s = patience.BRIEF_S
            locked = self._leading.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
                "AND pid = pg_backend_pid() AND classid = %s AND objid = %s",
                (_LOCKS, _LEADING),
            ).fetchone()
            if locked is not None and locked[0]:
                return True
            tried = self._leading.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", (_LOCKS, _LEADING)
            ).fetchone()
            return tried is not None and bool(tried[0])
        except psycopg.Error:
            self._stop_leading()
            return False

    def lasting(self, error: sa.exc.DBAPIError) -> str | None:
        """A lost connection is not: what was committed on it is found by its key."""
        state = str(getattr(error.orig, "sqlstate", None))
        return state if state.startswith(_LASTING) else None

    def contended(self, error: sa.exc.DBAPIError) -> bool:
        """Whether others were in the way."""
        return getattr(error.orig, "sqlstate", None) in _CONTENDED

    def present(self) -> bool:
        """A server that is gone says so itself."""
        return True

    def close(self) -> None:
        """Close every connection, and let another process lead."""
        self._stop_leading()
        self._reading.dispose()
        self.writer.close()
        self._writing.dispose()

    @contextmanager
    def _driver(self) -> Iterator[psycopg.Connection[Any]]:
        """The writer's connection as psycopg knows it; its errors come out as SQLAlchemy's."""
        driver: Any = self.writer.connection.driver_connection
        try:
            yield driver
        except psycopg.Error as error:
            if driver.closed:
                self.writer.invalidate(error)
            raise sa.exc.DBAPIError.instance(
                None, None, error, psycopg.Error, connection_invalidated=driver.closed
            ) from error

    def _run(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        with self._driver() as driver:
            if self._pipeline is None or self._pipeline.connection is not driver:
                driver.execute("DEALLOCATE ALL")  # by psycopg, which has to know it
                self._pipeline = Pipeline(driver)
            rows = []
            for at in range(0, len(statements), STATEMENTS_TOGETHER):
                rows += self._pipeline.run(statements[at : at + STATEMENTS_TOGETHER])
            return rows

    def _forget_prepared(self, _connection: sa.Connection) -> None:
        """psycopg may deallocate what is prepared when it rolls back, whoever prepared it."""
        self._pipeline = None

    def _connect(self) -> PatientConnection:
        return PatientConnection.connect(self._conninfo, autocommit=True, **self._options)

    def _stop_leading(self) -> None:
        if self._leading is not None:
            with suppress(psycopg.Error):
                self._leading.close()
            self._leading = None


def _value(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    return None if row is None else row[0]


def _wait_and_lock(connection: PatientConnection, lock: int) -> None:
    """Have a lock once nobody else has it, however long others keep it."""
    connection.execute("SET lock_timeout = 0")
    connection.execute("SET statement_timeout = 0")
    connection.patience_s = None
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCKS, lock))


def _connect_patiently(
    _dialect: object, _record: object, arguments: Sequence[Any], named: Mapping[str, Any]
) -> PatientConnection:
    return PatientConnection.connect(*arguments, **named)


def _be_brief(driver: Any, _record: object) -> None:
    """Until a reader has it: it is only asked whether it is still there."""
    driver.patience_s = patience.BRIEF_S


def _read_only(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
