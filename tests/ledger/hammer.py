"""Many processes pay over HTTP from one server on SQLite, which dies by SIGKILL again and again.

    scripts/hammer-kill --seed 7 --processes 8 --decisions 100000 --kills 100 --rounds 10

After every restart: what was acknowledged is recorded as it was said, by the records every decision
was the only right one, they re-hash to every signed root, and what remains is what they leave; now
and then the evidence verifies. What is checked in the end is in `tests.durability.hammer`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from engine.clock import system_clock
from tests.durability.hammer import KILLED_WHILE_STARTING, Hammer, Size, arguments_of, rounds
from tests.durability.payers import USD, OverHttp
from tests.durability.pools import Shared, read_log
from tests.durability.worker import ERA, PORT
from tests.ledger.forked_server import ForkedServer
from tests.ledger.oracle import query, require
from tests.ledger.served import OPERATOR, verify
from tests.world import WORKSPACE, World

STARTING_MAX_S = 2.5
KILLED_AFTER_MAX_S = 0.03
STOPPED_INSTEAD = 0.06
EVIDENCE_FILES = 20
WINDOWS = {
    "per_day": "remaining_today",
    "per_week": "remaining_this_week",
    "per_month": "remaining_this_month",
}


class SqliteHammer(Hammer):
    """One run over a data directory that belongs to it."""

    one_writer = True

    def __init__(self, directory: Path, size: Size) -> None:
        super().__init__(directory, size)
        self.data = directory / "data"
        self.store = self.data / "ledger.sqlite3"
        self.server: ForkedServer | None = None
        self.acknowledged = 0

    @contextmanager
    def world(self, name: str) -> Iterator[World]:
        world = World(self.data, own=True)
        try:
            yield world
        finally:
            world.engine.close()

    def rpc(self, world: World) -> str:
        serving = world.engine.serve_embedded_chain()
        assert serving is not None
        return serving.url

    def run(self) -> dict[str, Any]:
        """See `Hammer`; no server is left."""
        try:
            return super().run()
        finally:
            if self.server is not None:
                self.server.kill()

    # The kills

    def begin(self) -> None:
        self.restart()

    def settings_of(self, number: int) -> None:
        """They ask the server."""

    def kill(self, share: float) -> None:
        """The server, at some moment."""
        killed = self.figures["kills"]
        if killed >= self.size.kills or share * (self.size.kills + 1) <= killed:
            return
        time.sleep(self.random.uniform(0, KILLED_AFTER_MAX_S))
        if self.random.random() < STOPPED_INSTEAD:
            self.stop_server()
        else:
            assert self.server is not None
            self.server.kill()
            self.figures["kills"] += 1
        self.board[PORT] = 0
        self.journals.follow()
        self.restart()
        if self.figures["kills"] >= self.size.kills * self.figures["files"] / EVIDENCE_FILES:
            self.check_file()

    def stop_server(self) -> None:
        """Ask it to stop while everybody asks it for payments."""
        assert self.server is not None
        started = time.monotonic()
        require(self.server.stop() == 0, "the server stops when asked")
        taken_ms = round((time.monotonic() - started) * 1000)
        self.figures["slowest stop ms"] = max(taken_ms, self.figures["slowest stop ms"])
        self.figures["stops"] += 1

    def killed_enough(self) -> bool:
        return self.figures["kills"] >= self.size.kills

    def restart(self) -> None:
        """Start again, sometimes after more kills while it was starting, and check."""
        while True:
            self.server = ForkedServer(self.data, anchor_interval_s=self.size.anchor_interval_s)
            if self.random.random() >= KILLED_WHILE_STARTING:
                break
            time.sleep(self.random.uniform(0, STARTING_MAX_S))
            self.server.kill()
            self.figures["kills while starting"] += 1
        started = time.monotonic()
        self.server.ready()
        taken_ms = round((time.monotonic() - started) * 1000)
        self.figures["slowest start ms"] = max(taken_ms, self.figures["slowest start ms"])
        self.check_restarted()
        self.board[PORT] = self.server.port

    def end(self) -> None:
        """Ask the server again, stop it, and read all that it left."""
        assert self.server is not None
        payer = OverHttp(lambda: int(self.board[PORT]))
        self.ask_again(payer)
        payer.close()
        self.stop_server()
        integrity = query(self.store, "PRAGMA integrity_check")
        require(integrity == [("ok",)], f"the file is whole: {integrity}")
        self.follow_log()
        self.records.feed(read_log(self.store))  # the bytes of each are still those it had
        self.figures["error lines of the server"] = len(self.server.complaints())

    # The checks after a restart, while nobody pays

    def check_restarted(self) -> None:
        """All that was heard is recorded, and what is left is what the records leave."""
        self.follow_log()
        self.acknowledged = self.journals.facts.check_answers(self.acknowledged)
        assert self.server is not None
        targets = (*self.eras[max(self.board[ERA], 0)], *self.always)
        with self.client() as client:
            for target in targets:
                if target.workspace == WORKSPACE:  # the admin's own
                    self.check_left(client, target.session)

    def check_left(self, client: httpx.Client, session: str) -> None:
        """The server says of a session what the records say."""
        for _ in range(50):
            before = self.newest()
            self.follow_log()
            budget = self.records.budgets[session]
            assert isinstance(budget, Shared)
            expected = budget.told(system_clock())
            response = client.get(f"/api/v1/ai/sessions/{session}")
            again = self.newest(), budget.told(system_clock())
            if again == (before, expected) and before[1] == 0:
                break  # nothing happened meanwhile, such as an expiry
            time.sleep(0.02)
        shown = json.loads(response.text, parse_float=Decimal)
        for window, left in expected.items():
            told = shown[WINDOWS[window]]
            said = None if told is None else Decimal(told) * USD
            require(said == left, f"{session}: {window} {said} is left, by the records {left}")

    def newest(self) -> tuple[Any, ...]:
        """The newest record, and how many batches have no place in the log yet."""
        [found] = query(
            self.store,
            "SELECT max(id), (SELECT count(*) FROM log_batches WHERE first_leaf IS NULL) "
            "FROM records",
        )
        return found

    def check_file(self) -> None:
        """The evidence verifies; it is pending if and only if it has a tail."""
        assert self.server is not None
        target = self.random.choice(self.always)
        with self.client() as client:
            response = client.get(f"/api/v1/sessions/{target.session}/evidence")
        require(response.status_code == 200, response.text[:1000])
        file = self.directory / "evidence.json"
        file.write_bytes(response.content)
        status = verify(file, self.server)
        require((status == 3) == bool(response.json()["tail"]), f"verify says {status}")
        self.figures["files"] += 1
        self.figures[f"verified with status {status}"] += 1

    def client(self) -> httpx.Client:
        """An operator."""
        assert self.server is not None
        return httpx.Client(
            base_url=self.server.url, headers=OPERATOR, timeout=60, trust_env=False, verify=False
        )


def hammer(directory: Path, size: Size) -> dict[str, Any]:
    """A run in `directory`."""
    return SqliteHammer(directory, size).run()


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Kill a paying server and check what it said.")
    size, count, _ = arguments_of(parser, decisions=20_000)
    rounds(hammer, size, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
