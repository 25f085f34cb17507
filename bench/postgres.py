"""PostgreSQL deciding by itself: what one would write first instead of an engine.

A row lock on the session, one sum over its payments, one insert. The load comes from pgbench, which
is written in C: Python would be measured instead of the database.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench.contender import (
    AMOUNT_MICRO_USD,
    CONNECTIONS,
    LIMIT_MICRO_USD,
    MERCHANTS,
    Contender,
    Rate,
)
from engine.policy.limits import DAY_MS, MONTH_MS, WEEK_MS
from tests.servers import POSTGRES_DURABLE, PostgresServer

CLIENT_THREADS = 2
PRIOR_SESSIONS = 100
SETTINGS = {
    "max_connections": "64",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",  # no checkpoint is forced in the middle of a run
    "checkpoint_timeout": "30min",
    "jit": "off",
    **POSTGRES_DURABLE,
}
_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

SCHEMA = """
CREATE TABLE sessions (
    id bigint PRIMARY KEY, state text NOT NULL, per_transaction bigint NOT NULL,
    per_day bigint NOT NULL, per_week bigint NOT NULL, per_month bigint NOT NULL
);
CREATE TABLE payments (
    session_id bigint NOT NULL, idempotency_key text NOT NULL, decided_ms bigint NOT NULL,
    amount bigint NOT NULL, state text NOT NULL, merchant text NOT NULL,
    PRIMARY KEY (session_id, idempotency_key)
);
CREATE INDEX ON payments (session_id, decided_ms) INCLUDE (amount);
"""

SUMS = f"""
SELECT coalesce(sum(amount) FILTER (WHERE decided_ms > {{now}} - {DAY_MS}), 0)::bigint AS day,
       coalesce(sum(amount) FILTER (WHERE decided_ms > {{now}} - {WEEK_MS}), 0)::bigint AS week,
       coalesce(sum(amount), 0)::bigint AS month
"""
SUMS_OF = f"FROM payments WHERE session_id = {{session}} AND decided_ms > {{now}} - {MONTH_MS}"

FUNCTION = f"""
CREATE FUNCTION pay(a_session bigint, a_key text, an_amount bigint, a_merchant text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    earlier text;
    the_session sessions;
    spent record;
    now_ms bigint;
BEGIN
    SELECT state INTO earlier FROM payments
     WHERE session_id = a_session AND idempotency_key = a_key;
    IF FOUND THEN
        RETURN earlier;
    END IF;
    SELECT * INTO the_session FROM sessions WHERE id = a_session FOR UPDATE;
    now_ms := {_NOW_MS};
    {SUMS.format(now="now_ms").replace("AS month", "AS month INTO spent")}
    {SUMS_OF.format(session="a_session", now="now_ms")};
    IF the_session.state <> 'active'
       OR an_amount > the_session.per_transaction
       OR spent.day + an_amount > the_session.per_day
       OR spent.week + an_amount > the_session.per_week
       OR spent.month + an_amount > the_session.per_month
    THEN
        RETURN 'denied';
    END IF;
    INSERT INTO payments VALUES (a_session, a_key, now_ms, an_amount, 'held', a_merchant);
    RETURN 'held';
END
$$
"""

_KEY = "concat(:run::text, '-', :client_id::text, '-', :n::text)"
_MERCHANT = "concat('merchant-', :merchant::text)"
_DRAWS = f"""
\\set session random(1, :sessions)
\\set merchant random(1, {MERCHANTS})
\\set n :n + 1
"""


class PgPlpgsql(Contender):
    """One call of one PL/pgSQL function a request."""

    name = "pg-plpgsql"
    says = (
        "PostgreSQL alone, one PL/pgSQL call a request: look for the idempotency key, lock the "
        "session's row, sum three windows with a covering index, insert. "
        f"{CONNECTIONS} connections over a Unix socket from pgbench (C, {CLIENT_THREADS} threads). "
        "No audit record, no event, no log, no signature."
    )
    connections: ClassVar[int] = CONNECTIONS
    prior: ClassVar[int] = 0
    """Payments that each session has already."""
    script: ClassVar[str] = (
        _DRAWS + f"SELECT pay(:session, {_KEY}, {AMOUNT_MICRO_USD}, {_MERCHANT});\n"
    )

    def prepare(self) -> Mapping[str, str]:
        self.server = PostgresServer(SETTINGS).__enter__()
        self.connection = self.server.connect()
        self.connection.execute(SCHEMA.encode())
        self.connection.execute(FUNCTION.encode())
        self.sessions = PRIOR_SESSIONS if self.prior else self.workload.sessions
        self.connection.execute(
            f"INSERT INTO sessions SELECT id, 'active', {LIMIT_MICRO_USD}, {LIMIT_MICRO_USD}, "
            f"{LIMIT_MICRO_USD}, {LIMIT_MICRO_USD} "
            f"FROM generate_series(1, {self.sessions}) id".encode()
        )
        prior = self.workload.scaled(self.prior) if self.prior else 0
        if prior:
            # Spread evenly over the last month, so that they are in each window as they would be.
            self.connection.execute(
                f"INSERT INTO payments SELECT session, concat('prior-', n), "
                f"{_NOW_MS} - ({MONTH_MS - DAY_MS} / {prior}.0 * n)::bigint, {AMOUNT_MICRO_USD}, "
                f"'captured', 'merchant-1' FROM generate_series(1, {prior}) n, "
                f"generate_series(1, {self.sessions}) session".encode()
            )
        self._settle()
        version = self.connection.execute("SHOW server_version").fetchone()
        assert version is not None
        return {
            "PostgreSQL": version[0],
            "sessions": str(self.sessions),
            "prior payments a session": str(prior),
            **SETTINGS,
        }

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        if not self.prior:
            self.connection.execute("TRUNCATE payments")
        self._settle()
        before = self._stored()
        log = self.workload.directory / f"pgbench-{self.runs}"
        said = self._pgbench(seconds, log)
        count = int(_found(r"transactions actually processed: (\d+)", said))
        per_second = float(_found(r"tps = ([\d.]+) \(without", said))
        assert _found(r"failed transactions: (\d+)", said) == "0", said
        assert self._stored() - before == count, "a request was denied"
        latencies_ms = []
        for part in log.parent.glob(f"{log.name}.*"):
            lines = part.read_text().splitlines()
            latencies_ms += [int(line.split()[2]) / 1000 for line in lines]
            part.unlink()
        return Rate(count, count / per_second, latencies_ms)

    def close(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
        if hasattr(self, "server"):
            self.server.remove()

    def _pgbench(self, seconds: float, log: Path) -> str:
        script = self.workload.directory / "script.sql"
        script.write_text(self.script)
        done = subprocess.run(
            [
                *(self.server.binaries / "pgbench", self.server.url(), "--no-vacuum"),
                *("--client", str(self.connections)),
                *("--jobs", str(min(self.connections, CLIENT_THREADS))),
                *("--time", str(max(1, round(seconds))), "--protocol", "prepared"),
                *("--file", script, "--log", "--log-prefix", log),
                *("--define", f"sessions={self.sessions}", "--define", "n=0"),
                *("--define", f"run={self.runs}"),
                *("--random-seed", str(self.workload.seed + self.runs)),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[:2000]
        return done.stdout

    def _settle(self) -> None:
        """Statistics and the visibility map up to date, nothing left to write."""
        self.connection.execute("VACUUM (ANALYZE) payments")
        self.connection.execute("VACUUM (ANALYZE) sessions")
        self.connection.execute("CHECKPOINT")

    def _stored(self) -> int:
        row = self.connection.execute("SELECT count(*) FROM payments").fetchone()
        assert row is not None
        return int(row[0])


class PgPlpgsqlAlone(PgPlpgsql):
    """The same when nobody else asks."""

    name = "pg-plpgsql-alone"
    connections = 1
    says = f"The same as {PgPlpgsql.name} with one connection, which waits for each answer."


class PgPlpgsqlPrior(PgPlpgsql):
    """The same when there is a past to sum."""

    name = "pg-plpgsql-prior"
    prior = 10_000
    says = (
        f"The same as {PgPlpgsql.name} with {prior:,} prior payments (at size 1) in each "
        f"of {PRIOR_SESSIONS} sessions, spread over the last 29 days."
    )


class PgStatements(PgPlpgsql):
    """The same from outside the database."""

    name = "pg-statements"
    says = (
        f"The same as {PgPlpgsql.name} by five prepared statements in a transaction that the "
        "client decides on: key, lock, sums, insert, commit."
    )
    script = (
        _DRAWS
        + f"""
BEGIN;
SELECT count(*) AS earlier FROM payments
 WHERE session_id = :session AND idempotency_key = {_KEY} \\gset
SELECT per_transaction, per_day, per_week, per_month, (state = 'active')::int AS active,
       {_NOW_MS} AS now FROM sessions WHERE id = :session FOR UPDATE \\gset
{SUMS.format(now="(:now)::bigint")}
{SUMS_OF.format(session=":session", now="(:now)::bigint")} \\gset
\\if :earlier = 0 and :active = 1 and {AMOUNT_MICRO_USD} <= :per_transaction """
        + f"and :day + {AMOUNT_MICRO_USD} <= :per_day and :week + {AMOUNT_MICRO_USD} <= :per_week "
        + f"and :month + {AMOUNT_MICRO_USD} <= :per_month\n"
        + f"""INSERT INTO payments
VALUES (:session, {_KEY}, :now, {AMOUNT_MICRO_USD}, 'held', {_MERCHANT});
\\endif
COMMIT;
"""
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]
