"""Tallystick's engine in process: the policy, the audit record, the event and the commit."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from api.server import seldom_collecting
from bench.contender import (
    AMOUNT_MICRO_USD,
    CONNECTIONS,
    LIMIT_MICRO_USD,
    MERCHANTS,
    Contender,
    Rate,
    Workload,
)
from bench.postgres import SETTINGS as POSTGRES_SETTINGS
from engine.engine import Engine
from engine.ledger.ask import Ask, ask
from engine.ledger.payment import Payment
from engine.policy.decision import PaymentRequest
from engine.policy.limits import Limits
from tests.servers import PostgresServer
from tests.world import World

BATCH_ASKS = 256
HOLD_TTL_S = 604_800
"""Holds live longer than the benchmark, so that none expires in the middle of it."""
LIMITS = Limits(LIMIT_MICRO_USD, LIMIT_MICRO_USD, LIMIT_MICRO_USD, LIMIT_MICRO_USD, None)
MEMO = {"description": None, "metadata_json": "{}"}


class Payer:
    """Asks an engine for the payments that are measured."""

    def __init__(self, engine: Engine, workload: Workload) -> None:
        self.workload = workload
        self.ledger = engine.ledger
        usdc = engine.token("USDC", None)
        assert usdc is not None
        self._requests = [
            PaymentRequest(
                amount=AMOUNT_MICRO_USD,
                merchant=f"merchant-{number}",
                token=usdc.asset,
                chain=usdc.chain,
                token_priced=True,
            )
            for number in range(MERCHANTS)
        ]

    def asks(self, sessions: Sequence[str], run: object, *, capture: bool = False) -> Iterator[Ask]:
        """Requests without end, spread evenly; each has an idempotency key of its own."""
        draw = self.workload.draw(run)
        for number in itertools.count():
            yield ask(
                draw.choice(sessions),
                draw.choice(self._requests),
                memo=MEMO,
                key=f"{run}-{number:012}",
                capture=capture,
            )

    def pay(self, asks: Iterator[Ask], until: Callable[[int], bool]) -> int:
        """Ask in batches until `until(count)`; returns how many were durably allowed.

        The next batch is handed in while one is decided and committed.
        """
        waiting: Future[list[Any]] | None = None
        count = 0
        while not until(count):
            handed_in = self.ledger.authorise_many(list(itertools.islice(asks, BATCH_ASKS)))
            count += BATCH_ASKS
            if waiting is not None:
                _check(waiting.result())
            waiting = handed_in
        if waiting is not None:
            _check(waiting.result())
        return count

    def pay_for(self, seconds: float, asks: Iterator[Ask]) -> Rate:
        """Ask in batches for so long."""
        started = time.perf_counter()
        count = self.pay(asks, lambda _: time.perf_counter() - started >= seconds)
        return Rate(count, time.perf_counter() - started)


class Installation(Payer):
    """A data directory with an open engine, and requests for it."""

    def __init__(self, workload: Workload, **settings: Any) -> None:
        self.world = World(workload.directory / "data", hold_ttl_s=HOLD_TTL_S, **settings)
        self._serving = ExitStack()
        super().__init__(self.world.engine, workload)

    @property
    def data_file(self) -> Path:
        """Where the ledger is, on SQLite."""
        return self.world.settings.data_dir / "ledger.sqlite3"

    def create_sessions(self, count: int) -> list[str]:
        """So many active sessions with a limit on every window."""
        return [self.world.session(LIMITS).id for _ in range(count)]

    def begin(self) -> None:
        """All is prepared: from here on garbage is collected as seldom as by `tallystick serve`."""
        self._serving.enter_context(seldom_collecting())

    def close(self) -> None:
        """Close the engine."""
        self._serving.close()
        self.world.engine.close()


def _check(answers: Sequence[Any]) -> None:
    for answer in answers:
        assert isinstance(answer, Payment), answer
        assert answer.state in ("held", "captured"), answer
        assert not answer.replayed, answer


class EngineSqlite(Contender):
    """The engine on SQLite, asked in batches."""

    name = "engine-sqlite"
    says = (
        "Ours: the engine in process on SQLite (WAL, synchronous=FULL), asked in batches of "
        f"{BATCH_ASKS}: idempotency key, policy, exact windows, hashed audit record, event, commit."
    )

    def prepare(self) -> Mapping[str, str]:
        self.installation = Installation(self.workload, **self.settings())
        self.sessions = self.installation.create_sessions(self.workload.sessions)
        self.installation.begin()
        return {"sessions": str(len(self.sessions)), "asks a batch": str(BATCH_ASKS)}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        asks = self.installation.asks(self.sessions, self.runs)
        return self.installation.pay_for(seconds, asks)

    def close(self) -> None:
        if hasattr(self, "installation"):
            self.installation.close()

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {}


class OnPostgres(Contender):
    """Stands before a contender on SQLite and gives it a database of PostgreSQL."""

    def prepare(self) -> Mapping[str, str]:
        self.database = PostgresServer(POSTGRES_SETTINGS).__enter__()
        with self.database.connect() as connection:
            connection.execute("CREATE DATABASE bench")
        return {**super().prepare(), **self.database.settings}

    def close(self) -> None:
        super().close()
        if hasattr(self, "database"):
            self.database.remove()

    def settings(self) -> dict[str, Any]:
        """Those of an installation in that database."""
        return {"database": self.database.url("bench"), "kek": "the same for every server"}


class EnginePostgres(OnPostgres, EngineSqlite):
    """The engine on PostgreSQL, asked in batches."""

    name = "engine-postgres"
    says = "Ours: the same engine, one process, on PostgreSQL with fsync and synchronous_commit on."


class _Callers(EngineSqlite):
    """Asked as a database is by its clients: each waits for its answer."""

    callers: ClassVar[int] = CONNECTIONS

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        ledger = self.installation.ledger
        started = time.perf_counter()

        def call(caller: int) -> list[float]:
            latencies_ms = []
            asks = self.installation.asks(self.sessions, f"{self.runs}/{caller}")
            while (asked := time.perf_counter()) - started < seconds:
                _check(ledger.authorise_many([next(asks)]).result())
                latencies_ms.append((time.perf_counter() - asked) * 1000)
            return latencies_ms

        with ThreadPoolExecutor(self.callers) as threads:
            every = list(itertools.chain.from_iterable(threads.map(call, range(self.callers))))
        return Rate(len(every), time.perf_counter() - started, every)


class EngineSqliteCallers(_Callers):
    """The engine on SQLite, asked by threads."""

    name = "engine-sqlite-callers"
    says = (
        f"Ours: engine-sqlite asked by {CONNECTIONS} threads of the same process, each waiting for "
        "its durable answer before it asks again, as a database's connections do."
    )


class EnginePostgresCallers(_Callers, EnginePostgres):
    """The engine on PostgreSQL, asked by threads."""

    name = "engine-postgres-callers"
    says = f"Ours: engine-postgres asked by {CONNECTIONS} threads in the same way."


class EngineSqliteAlone(EngineSqliteCallers):
    """The engine on SQLite, with one caller."""

    name = "engine-sqlite-alone"
    callers = 1
    says = "Ours: engine-sqlite asked by one thread that waits for each answer: no batches."


class EnginePostgresAlone(EnginePostgresCallers):
    """The engine on PostgreSQL, with one caller."""

    name = "engine-postgres-alone"
    callers = 1
    says = "Ours: engine-postgres asked by one thread in the same way."
