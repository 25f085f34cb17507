"""Cuts the power of a real server at thousands of instants, and looks for what it had acknowledged.

    scripts/power-cut --seed 7 --payments 400 --images 10000 --opened 100

`tallystick serve` runs under strace and pays. From its trace the directory is rebuilt as a power
cut could have left it at any write, truncation, sync and answer: of what was not synced nothing, a
random part of the writes, a random half of all 512-byte sectors, or everything is there. SQLite has
to recover each image to a whole file that holds everything acknowledged before that instant, and
nothing by halves; some are opened by the engine, which is asked for the old answers.
"""

import argparse
import json
import random
import re
import secrets
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.rest.routes.payments import ask_payment
from api.rest.schemas import CreatePayment
from engine.workspaces.access import SessionHolder
from tests.durability import syscalls
from tests.durability.disk import CUTS, Cut, Disk
from tests.durability.syscalls import Event, read_trace
from tests.ledger.oracle import Records, read_records, require
from tests.ledger.served import OPERATOR, Served
from tests.simulation.installation import scratch
from tests.world import WORKSPACE, World

CALLERS = 4
LEDGER = "ledger.sqlite3"
_ANSWERED = re.compile(rb'"id":"((?:pay|sess)_\w+)"')
_STATE = re.compile(rb'"state":"(\w+)"')


@dataclass(frozen=True)
class Asked:
    """A payment whose answer came, as it was asked for."""

    session: str
    payment: str
    key: str
    body: dict[str, Any]


@dataclass
class Recording:
    """A server's life: its directory as it was left, and the trace of all calls."""

    directory: Path
    trace: Path
    asked: list[Asked] = field(default_factory=list)

    def events(self) -> Iterator[Event]:
        """In their order."""
        return read_trace(self.trace, self.directory)


def record(directory: Path, *, seed: int, payments: int) -> Recording:
    """Run a server that pays, from its first start to its end."""
    data = directory / "data"
    data.mkdir(mode=0o700)
    recording = Recording(data, directory / "trace")
    server = Served(data, under=syscalls.command(recording.trace))
    try:
        server.ready()
        sessions = [_create(server, on_chain=number == 0) for number in range(3)]
        callers = [
            threading.Thread(
                target=_pay,
                args=(recording, server, sessions, random.Random(f"{seed}/{number}")),
                kwargs={"prefix": f"{number}", "payments": payments // CALLERS},
            )
            for number in range(CALLERS)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        require(server.stop() == 0, "the server stops when asked")
    finally:
        server.kill()
    syscalls.ended(recording.trace)
    require(len(recording.asked) == payments // CALLERS * CALLERS, "every payment was answered")
    return recording


def _create(server: Served, *, on_chain: bool) -> tuple[str, str]:
    body = {"agent_id": "a", "user_wallet": "0x" + "11" * 20, "mint_pkp": on_chain}
    body["limits"] = {"max_per_day": 3000}
    response = httpx.post(
        f"{server.url}/api/v1/ai/sessions",
        json=body,
        headers=OPERATOR,
        timeout=60,
        trust_env=False,
    )
    require(response.status_code == 201, response.text)
    return response.json()["id"], response.json()["session_token"]


def _pay(
    recording: Recording,
    server: Served,
    sessions: list[tuple[str, str]],
    draw: random.Random,
    *,
    prefix: str,
    payments: int,
) -> None:
    with httpx.Client(base_url=f"{server.url}/api/v1", timeout=60, trust_env=False) as client:
        for number in range(payments):
            session, token = draw.choice(sessions)
            key, method = f"{prefix}-{number}", draw.choice(("manual", "automatic"))
            headers = {"X-Session-Token": token, "Idempotency-Key": key}
            body = {"amount": f"{draw.randint(1, 100)}.00", "capture_method": method}
            answer = client.post("/payments", json=body, headers=headers).json()
            recording.asked.append(Asked(session, answer["id"], key, body))
            if answer["state"] == "held" and draw.random() < 0.8:
                way = draw.choice(("capture", "void"))
                client.post(f"/payments/{answer['id']}/{way}", headers=headers)


class Truth:
    """What the server wrote in the end, and what it had acknowledged when."""

    def __init__(self, data_file: Path) -> None:
        self.bodies = [body for _, body in read_records(data_file)]
        records = Records()
        records.feed(enumerate(self.bodies))
        self.where: dict[tuple[str, str], int] = {}
        """The place in the log of what an answer about an id in some state rests on."""
        self.states: list[dict[str, tuple[str, int]]] = [{}]
        """After each record: the state of every payment, and how much was captured."""
        for place, body in enumerate(self.bodies):
            self.states.append(self._after(place, json.loads(body)))

    def _after(self, place: int, record: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
        kind, body = record["kind"], record["body"]
        if kind == "session.created":
            self.where[record["stream"], ""] = place
        if not kind.startswith("payment."):
            return self.states[-1]
        payment = body["payment"]
        state, captured = kind.removeprefix("payment."), body.get("captured_micro_usd", 0)
        if state == "decided":
            state = "held" if body["decision"]["allowed"] else "denied"
        self.where[payment, state] = place
        return {**self.states[-1], payment: (state, captured)}

    def rests_on(self, event: Event) -> int:
        """How many records there must be once this was sent; 0 if it acknowledges nothing."""
        places = [0]
        for found in _ANSWERED.finditer(event.data):
            name = found[1].decode()
            said = _STATE.search(event.data, found.end())
            state = "" if name.startswith("sess_") or said is None else said[1].decode()
            places.append(self.where[name, state] + 1)
        return max(places)


class PowerCut:
    """Takes images of a recorded life and checks them."""

    def __init__(self, recording: Recording, *, seed: int) -> None:
        self.recording = recording
        self.truth = Truth(recording.directory / LEDGER)
        self.draw = random.Random(seed)
        self.figures: Counter[str] = Counter()

    def check(
        self, images: int, opened: int, events: Iterable[Event] | None = None
    ) -> Counter[str]:
        """So many images, evenly over all instants, and one at each answer; `opened` by the engine.

        `events` stand for those of the recording.

        Raises:
            Broken: naming what is lost, or not whole.
        """
        events = list(self.recording.events() if events is None else events)
        instants = sum(event.what != "send" for event in events)
        each = images / instants
        disk, acknowledged = Disk(), 0
        for event in events:
            if event.what == "send":
                if (rests_on := self.truth.rests_on(event)) == 0:
                    continue
                acknowledged = max(acknowledged, rests_on)
                self.figures["answers"] += 1
                self._image(disk, "nothing", acknowledged, opened=False)
                continue
            if not disk.happened(event):
                continue
            self.figures[f"instants: {event.what}"] += 1
            for _ in range(int(each) + (self.draw.random() < each % 1)):
                by_engine = self.draw.random() < opened / images
                self._image(disk, self.draw.choice(CUTS), acknowledged, opened=by_engine)
        return self.figures

    def _image(self, disk: Disk, cut: Cut, acknowledged: int, *, opened: bool) -> None:
        self.figures["images"] += 1
        self.figures[f"images: {cut} kept"] += 1
        image = disk.image(cut, self.draw)
        with scratch() as directory:
            for name, content in image.items():
                (directory / name).write_bytes(content)
                (directory / name).chmod(0o600)
            self._recovered(directory / LEDGER, acknowledged)
            if opened and acknowledged:
                self._opened(directory, acknowledged)

    def _recovered(self, data_file: Path, acknowledged: int) -> None:
        """SQLite finds a whole file, and it holds a beginning of the truth that is long enough."""
        if not data_file.exists():
            require(acknowledged == 0, "the data file is not there")
            return
        with closing(sqlite3.connect(data_file)) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchall()
            require(found == [("ok",)], f"the file is not whole: {found}")
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == (0,):
                require(acknowledged == 0, "the tables are not there")
                return
            bodies = [row[0] for row in connection.execute("SELECT body FROM records ORDER BY id")]
            size = len(bodies)
            require(bodies == self.truth.bodies[:size], "these are not the records")
            require(size >= acknowledged, f"{size} records, of {acknowledged} acknowledged")
            [(hashed,)] = connection.execute(
                "SELECT coalesce(sum(length(leaf_hashes)), 0) / 32 FROM log_batches"
            )
            require(hashed == size, f"{size} records, but hashes of {hashed}")
            rows = connection.execute("SELECT session_id, number, state, captured FROM decisions")
            states = {
                f"pay_{session.removeprefix('sess_')}_{number}": (state, captured)
                for session, number, state, captured in rows
            }
            require(states == self.truth.states[size], "the payments are not those of the records")

    def _opened(self, directory: Path, acknowledged: int) -> None:
        """The engine opens it, and gives the answers that it had given."""
        self.figures["images opened by the engine"] += 1
        known = self.truth.states[acknowledged]
        world = World(directory)
        try:
            for asked in self.recording.asked:
                if asked.payment in known:
                    self._same(world, asked)
            world.engine.tick(anchor=True)
            require(world.engine.ready()["ready"], f"{world.engine.ready()}")
        finally:
            world.engine.close()

    def _same(self, world: World, asked: Asked) -> None:
        body = CreatePayment.model_validate(asked.body)
        holder = SessionHolder(WORKSPACE, asked.session, "bot")
        again = ask_payment(world.engine, holder, body, asked.key).result()
        require((again.id, again.replayed) == (asked.payment, True), f"{asked.key}: {again}")
        self.figures["old answers asked for again"] += 1


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Cut the power of a server that pays.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--payments", type=int, default=400)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=100)
    arguments = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {arguments.seed}\n")
    sys.stdout.flush()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tallystick-power-") as directory:
        recording = record(Path(directory), seed=arguments.seed, payments=arguments.payments)
        figures = PowerCut(recording, seed=arguments.seed).check(arguments.images, arguments.opened)
    figures["seconds"] = round(time.monotonic() - started)
    say(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
