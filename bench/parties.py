"""Several processes with an engine each, on one PostgreSQL and one chain."""

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection

from api.server import seldom_collecting
from bench.contender import Contender, Rate, Workload
from bench.ours import BATCH_ASKS, HOLD_TTL_S, LIMITS, Payer
from bench.postgres import SETTINGS as POSTGRES_SETTINGS
from engine.engine import open_engine
from engine.settings import Settings
from tests.anvil_world import anvil_with_contracts
from tests.servers import PostgresServer

PARTIES_MAX = 8


class Parties:
    """So many processes, the first of which are asked; sessions are made by `world`."""

    def __init__(self, workload: Workload, count: int) -> None:
        """Start a database, a chain, an engine that makes sessions, and the processes."""
        self._talks: list[Connection] = []
        with ExitStack() as opened:
            postgres = opened.enter_context(PostgresServer(POSTGRES_SETTINGS))
            self.database = opened.enter_context(postgres.database())
            self.database_settings = postgres.settings
            anvil = opened.enter_context(anvil_with_contracts())
            given = {"kek": "the same for every server", "hold_ttl_s": HOLD_TTL_S}
            first = workload.directory / "first"
            world = anvil.world(first, database=self.database, **given)
            self.world = opened.enter_context(world)
            for number in range(count):
                own = {"data_dir": workload.directory / f"{number}"}
                settings = self.world.settings.model_copy(update=own)
                self._talks.append(_start(opened, settings, workload))
            for talk in self._talks:
                assert talk.recv() == "open"
            self._opened = opened.pop_all()

    def close(self) -> None:
        """End all of it."""
        self._opened.close()

    def pay(self, shares: Sequence[Sequence[str]], run: object, seconds: float) -> Rate:
        """Have as many processes pay from a share of sessions each; what they did together."""
        asked = list(zip(self._talks, shares, strict=False))
        for number, (talk, share) in enumerate(asked):
            talk.send((share, f"{run}/{number}", seconds))
        rates = [talk.recv() for talk, _ in asked]
        return Rate(sum(rate.count for rate in rates), max(rate.seconds for rate in rates))


def _start(opened: ExitStack, settings: Settings, workload: Workload) -> Connection:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_pay, args=(settings, workload, theirs), daemon=True)
    process.start()
    theirs.close()
    opened.callback(process.join)
    opened.callback(ours.close)
    return ours


def _pay(settings: Settings, workload: Workload, talk: Connection) -> None:
    """A process: told (sessions, run, seconds) it pays for so long and says how much it did."""
    signal.signal(signal.SIGINT, lambda *_: None)  # it ends when its parent closes the pipe
    with closing(open_engine(settings)) as engine:
        payer = Payer(engine, workload)
        talk.send("open")
        with seldom_collecting():
            while True:
                try:
                    sessions, run, seconds = talk.recv()
                except EOFError:
                    return
                talk.send(payer.pay_for(seconds, payer.asks(sessions, run)))


class EnginePostgresProcesses(Contender):
    """The engine on PostgreSQL, one process for each processor."""

    name = "engine-postgres-processes"
    says = (
        f"Ours: engine-postgres with a process for each processor, at most {PARTIES_MAX}, asked in "
        f"batches of {BATCH_ASKS} for its share of the sessions, as where a load balancer knows "
        "sessions by their tokens. They share a chain (Anvil), which is not asked."
    )

    def prepare(self) -> Mapping[str, str]:
        count = min(os.cpu_count() or 1, PARTIES_MAX)
        self.parties = Parties(self.workload, count)
        made = [self.parties.world.session(LIMITS).id for _ in range(self.workload.sessions)]
        self.shares = [made[number::count] for number in range(count)]
        told = {"sessions": str(len(made)), "processes": str(count)}
        return {**told, **self.parties.database_settings}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        return self.parties.pay(self.shares, self.runs, seconds)

    def close(self) -> None:
        if hasattr(self, "parties"):
            self.parties.close()
