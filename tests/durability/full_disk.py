"""An installation on a file system of its own, which gets full, has room, and is read-only.

    unshare --mount python -m tests.durability.full_disk DIRECTORY

It mounts a tmpfs on the directory, which only its own namespace sees (mount_namespaces(7)).
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.chain.embedded import EmbeddedChain
from engine.engine import Engine, open_engine
from engine.errors import CannotStart, Unavailable
from engine.fsck.check import Chain, check
from engine.ledger.payment import Payment
from engine.settings import Settings
from tests.anvil_world import wait_until
from tests.durability.payers import Question, submit
from tests.ledger.oracle import Records, query, read_records, require
from tests.world import USD, World

SIZE_MIB = 8
BALLAST_MIB = 2
CALLERS = 8
REFUSED_IN_A_ROW = 5


class FullDisk:
    """One run; `figures` counts it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.answers: dict[Question, str] = {}
        self.unheard: list[Question] = []
        self.figures: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """All of it.

        Raises:
            Broken: naming the first promise that does not hold.
        """
        self.mount(f"size={SIZE_MIB}m")
        ballast = self.place / "ballast"
        ballast.write_bytes(bytes(BALLAST_MIB << 20))
        world = World(self.place / "data", anchor_interval_s=1)
        self.session = world.session().id
        engine = world.engine
        engine.start()
        self.fill(engine)
        self.only_what_was_answered(world)
        ballast.unlink()
        wait_until(lambda: bool(engine.ready()["ready"]))  # it goes on by itself
        for asked in self.unheard[:CALLERS]:
            self.answers[asked] = submit(engine, asked).result().id
        engine.close()
        self.refused_read_only(world.settings)
        self.only_what_was_answered(world)
        world = World(self.place / "data")
        self.whole(world)
        world.engine.close()
        return self.figures

    def mount(self, options: str) -> None:
        """Mount, or mount again in another way."""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)]
        subprocess.run(command, check=True)

    def fill(self, engine: Engine) -> None:
        """Pay from many threads until each is refused again and again."""

        def pay(caller: int) -> None:
            refused = number = 0
            while refused < REFUSED_IN_A_ROW:
                asked = Question(f"{caller}-{number}", self.session, USD, hold=number % 3 == 0)
                number += 1
                try:
                    self.answers[asked] = submit(engine, asked).result().id
                    refused = 0
                except Unavailable:
                    refused += 1
                    self.unheard.append(asked)

        callers = [threading.Thread(target=pay, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        self.figures["answers until it was full"] = len(self.answers)
        self.figures["refused while it was full"] = len(self.unheard)
        for asked, payment in list(self.answers.items())[:CALLERS]:
            again = self.insist(engine, asked)
            require((again.id, again.replayed) == (payment, True), "what was answered can be read")

    def insist(self, engine: Engine, asked: Question) -> Payment:
        """Ask until there is an answer: what needs no room fails with what it is committed with."""
        for _ in range(REFUSED_IN_A_ROW):
            with suppress(Unavailable):
                return submit(engine, asked).result()
        return submit(engine, asked).result()

    def only_what_was_answered(self, world: World) -> None:
        """Each answer has its row and its record, and there is no other."""
        rows = query(world.store, "SELECT session_id, number FROM decisions")
        stored = {f"pay_{session.removeprefix('sess_')}_{number}" for session, number in rows}
        require(stored == set(self.answers.values()), "what is stored is what was answered")
        records = Records()
        records.feed(read_records(world.store))
        require(records.decided.keys() == stored, "what is recorded is what was answered")

    def refused_read_only(self, settings: Settings) -> None:
        """Linux makes nothing read-only that somebody has open for writing: this is a start."""
        self.mount("remount,ro")
        for _ in range(2):
            try:
                open_engine(settings).close()
            except CannotStart as refusal:
                require("ead-only" in refusal.message or "readonly" in refusal.message, refusal)
                self.figures["starts refused while it was read-only"] += 1
        self.mount("remount,rw")

    def whole(self, world: World) -> None:
        """A start finds all of it, and it can be anchored."""
        for asked, payment in self.answers.items():
            again = submit(world.engine, asked).result()
            require((again.id, again.replayed) == (payment, True), f"{asked.key} is forgotten")
        anchor = world.engine.anchor()
        require(anchor is not None and anchor.state == "final", f"it is anchored: {anchor}")
        assert isinstance(world.engine.gateway, EmbeddedChain)
        chain = Chain(world.engine.gateway, world.engine.deployment.registry)
        report = check(world.store, chain=chain)
        require(report.clean, f"fsck: {report.findings}")
        integrity = query(world.store, "PRAGMA integrity_check")
        require(integrity == [("ok",)], f"the file is whole: {integrity}")


def main() -> None:
    """Run in the directory that is named."""
    figures: dict[str, Any] = FullDisk(Path(sys.argv[1])).run()
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
