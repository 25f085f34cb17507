"""Many processes pay on one PostgreSQL and die by SIGKILL; then every answer is checked.

    scripts/hammer-postgres --seed 7 --processes 8 --decisions 100000 --kills 100

The database is killed, too, if asked for. What is checked is in `tests.durability.hammer`.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from pydantic import SecretStr

from engine.settings import Settings
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.durability.hammer import (
    HOLD_TTL_S,
    KILLED_WHILE_STARTING,
    POLL_S,
    Hammer,
    Size,
    arguments_of,
    rounds,
    said,
)
from tests.durability.payers import OfEngine
from tests.ledger.oracle import require
from tests.servers import PostgresServer
from tests.world import World

KEK = "the same for every server"
KILLED_IN_COMMIT = 0.5
LOOKS_MAX = 500
COMMITTING = "SELECT usename FROM pg_stat_activity WHERE state = 'active' AND query = 'COMMIT'"


def role(number: int) -> str:
    """As whom a worker connects."""
    return f"worker_{number}"


class PostgresHammer(Hammer):
    """One run over a database and a chain that belong to it."""

    one_writer = False

    def __init__(
        self,
        directory: Path,
        size: Size,
        postgres: PostgresServer,
        url: str,
        anvil: AnvilWithContracts,
        *,
        server_kills: int,
    ) -> None:
        super().__init__(directory, size)
        self.postgres, self.anvil = postgres, anvil
        self.store = self.url = url
        self.server_kills = server_kills

    @contextmanager
    def world(self, name: str) -> Iterator[World]:
        with self.anvil.world(
            self.directory / name,
            database=self.url,
            kek=KEK,
            hold_ttl_s=HOLD_TTL_S,
            poll_interval_ms=50,
            anchor_interval_s=self.size.anchor_interval_s,
        ) as world:
            self.settings = world.settings
            yield world

    def rpc(self, world: World) -> str:
        return self.anvil.process.url

    def begin(self) -> None:
        """Each worker has an engine of its own, and a name that the server tells of."""
        with psycopg.connect(self.url) as connection:
            for number in range(self.size.processes):
                connection.execute(f"CREATE ROLE {role(number)} LOGIN SUPERUSER".encode())

    def settings_of(self, number: int) -> Settings:
        address = sa.make_url(self.url).set(username=role(number))
        return self.settings.model_copy(
            update={
                "data_dir": self.directory / f"{number}",
                "database": SecretStr(address.render_as_string(hide_password=False)),
            }
        )

    def end(self) -> None:
        with self.world("asking") as world:
            self.ask_again(OfEngine(world.engine))

    def kill(self, share: float) -> None:
        """One worker after the other, and now and then the database."""
        killed, servers = self.figures["kills"], self.figures["kills of the database"]
        if killed < self.size.kills and share * (self.size.kills + 1) > killed:
            self.kill_one()
        if servers < self.server_kills and share * (self.server_kills + 1) > servers + 0.5:
            self.kill_server()

    def killed_enough(self) -> bool:
        return (
            self.figures["kills"] >= self.size.kills
            and self.figures["kills of the database"] >= self.server_kills
        )

    def kill_one(self) -> None:
        """Kill a worker that has paid in this life, if there is one, whatever it does."""
        paying = [
            number
            for number, (given, _) in self.workers.items()
            if self.journals.lives[given.journal.stem]
        ]
        if not paying:
            return
        number = self.committing(paying) if self.random.random() < KILLED_IN_COMMIT else None
        if number is None:
            number = self.random.choice(paying)
            time.sleep(self.random.uniform(0, POLL_S))
        else:
            self.figures["kills in a commit"] += 1
        self.end_life(number)
        while self.random.random() < KILLED_WHILE_STARTING:
            time.sleep(self.random.uniform(0, 1.5))
            self.end_life(number)
            self.figures["kills while starting"] += 1
        self.figures["kills"] += 1

    def committing(self, paying: list[int]) -> int | None:
        """Who waits for the end of a commit just now, and could not have answered yet."""
        workers = {role(number): number for number in paying}
        with psycopg.connect(self.url, autocommit=True) as watching:
            for _ in range(LOOKS_MAX):
                for (name,) in watching.execute(COMMITTING):
                    if name in workers:
                        return workers[name]
        return None

    def end_life(self, number: int) -> None:
        """SIGKILL, and a new life."""
        given, process = self.workers[number]
        require(process.exitcode is None, f"worker {number} ended: {said(given)}")
        process.kill()
        process.join()
        process.close()
        self.journals.over(given.journal)
        self.start(number, given.life + 1)

    def kill_server(self) -> None:
        """SIGKILL the postmaster; its backends end with it."""
        self.postgres.kill()
        time.sleep(self.random.uniform(0, 0.5))
        self.postgres.start()
        self.figures["kills of the database"] += 1


def hammer(directory: Path, size: Size, *, server_kills: int) -> dict[str, Any]:
    """A run in `directory`, on servers of its own."""
    with ExitStack() as opened:
        postgres = opened.enter_context(PostgresServer())
        url = opened.enter_context(postgres.database())
        anvil = opened.enter_context(anvil_with_contracts())
        run = PostgresHammer(directory, size, postgres, url, anvil, server_kills=server_kills)
        return run.run()


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Kill paying processes that share a database.")
    parser.add_argument("--server-kills", type=int, default=0, help="of the database, in a round")
    size, count, given = arguments_of(parser, decisions=100_000)
    rounds(partial(hammer, server_kills=given.server_kills), size, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
