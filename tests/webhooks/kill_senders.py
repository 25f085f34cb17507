"""Kills engines by SIGKILL while they deliver to a receiver that fails three times in ten.

    scripts/webhooks-kill --seed 7 --kills 200

Each engine pays, makes and ends sessions, reaches limits and delivers until it is killed: every
second one at a drawn moment, sometimes before it is open, the others at one after they did each of
these. Every second one opens the directory of the one before an hour later by its clock. In the end
one delivers what is left. Then every event that was committed must have arrived, each time under
its id and with the same bytes, and nothing else; every payment that was acknowledged must be among
them, and every transition of a session exactly once. Each engine is listened to, from the last
place that was heard of the one before: that must tell the same events, each once and in the order
of the log.
"""

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from standardwebhooks.webhooks import Webhook

from engine.clock import system_clock
from tests.webhooks.receiver import Received, Receiver
from tests.webhooks.transitions import HOUR_MS, transitions, wrong_transitions
from tests.world import WORKSPACE, World, begin

FAILURES = 0.3
REFUSED_MAX = 6
"""So often an event is refused at most: after ten attempts in vain it would be given up."""
LIFE_S = (0.2, 1.5)
ROOT = Path(__file__).parents[2]


class Wrong(AssertionError):
    """An event did not arrive, or something that was none did."""


class Senders:
    """The process that forks those that are killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.webhooks.killed_sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.said: dict[str, set[str]] = {"paid": set(), "made": set(), "revoked": set()}
        self.heard: list[str] = []
        self._last = -1

    def close(self) -> None:
        """Have it end."""
        self._process.communicate()

    def run(
        self, directory: Path, ahead_ms: int, life_s: float | None, *, at_work: bool = False
    ) -> None:
        """Fork one, and kill it after `life_s`, counted from when it is under way if it has to be
        `at_work`; without that it delivers what is left and has to end well."""
        what = "drain" if life_s is None else "work"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{directory} {ahead_ms} {what} {self._last}\n".encode())
        self._process.stdin.flush()
        lines = self._lines()
        pid = int(next(lines).removeprefix("pid "))
        if life_s is not None and not at_work:
            self._kill(pid, life_s)
        for line in lines:
            word, _, told = line.partition(" ")
            if word in self.said:
                self.said[word].add(told)
            elif word == "under":
                if at_work and life_s is not None:
                    self._kill(pid, life_s)
            elif word == "heard":
                place, _, event_id = told.partition(" ")
                if int(place) <= self._last:
                    raise Wrong(f"{event_id} was heard at {place}, after {self._last}")
                self._last = int(place)
                self.heard.append(event_id)
            elif word == "dead":
                if int(told) != (signal.SIGKILL if life_s is not None else 0):
                    raise Wrong(f"a process ended by itself: {told}")
                return
            else:
                raise Wrong(line)

    def _kill(self, pid: int, life_s: float) -> None:
        time.sleep(life_s)
        os.kill(pid, signal.SIGKILL)

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.decode().rstrip("\n")


class Sink:
    """What the receiver saw."""

    def __init__(self, draw: random.Random, secret: str) -> None:
        self._draw = draw
        self._webhook = Webhook(secret)
        self.bodies: dict[str, bytes] = {}
        self.taken: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.attempts = 0
        self.wrong: list[str] = []

    def __call__(self, request: Received) -> int:
        """Keep a request, and refuse three in ten."""
        self.attempts += 1
        event_id = request.event["id"]
        told = request.headers
        at = datetime.fromtimestamp(int(told["webhook-timestamp"]), UTC)
        signed = self._webhook.sign(told["webhook-id"], at, request.body.decode())
        if told["webhook-id"] != event_id or told["webhook-signature"] != signed:
            self.wrong.append(f"{event_id} is not signed")
        if self.bodies.setdefault(event_id, request.body) != request.body:
            self.wrong.append(f"{event_id} is another than before")
        if self._draw.random() < FAILURES and self.refused[event_id] < REFUSED_MAX:
            self.refused[event_id] += 1
            return 500
        self.taken.add(event_id)
        return 200


def kill(directory: Path, *, seed: int, kills: int) -> dict[str, Any]:
    """Do it; returns the figures.

    Raises:
        Wrong: something did not hold.
    """
    draw = random.Random(seed)
    began_ms = system_clock()
    begin(directory, system_clock)
    with Receiver() as receiver, contextlib.closing(Senders()) as senders:
        world = World(directory, webhook_networks="127.0.0.0/8")
        _, secret = world.engine.webhooks.create(WORKSPACE, receiver.url, ("*",), by="test")
        world.engine.close()
        sink = receiver.answer = Sink(draw, secret)
        for number in range(kills):
            at_work = number % 2 == 1
            life_s = draw.uniform(*LIFE_S)
            senders.run(directory, number // 2 * HOUR_MS, life_s, at_work=at_work)
        senders.run(directory, kills * HOUR_MS, None)
    file = directory / "ledger.sqlite3"
    events = outbox(file)
    if sink.wrong:
        raise Wrong(sink.wrong[0])
    if missing := sorted(events.keys() - sink.taken):
        said = f"{missing[0]}, which was refused {sink.refused[missing[0]]} times"
        raise Wrong(f"{len(missing)} of {len(events)} events did not arrive, such as {said}")
    if strange := sorted(sink.bodies.keys() - events.keys()):
        raise Wrong(f"{len(strange)} events arrived that there are not, such as {strange[0]}")
    if sorted(senders.heard) != sorted(events):
        raise Wrong(f"{len(senders.heard)} events were heard of {len(events)}")
    for event_id, (name, data) in events.items():
        told = msgspec.json.decode(sink.bodies[event_id])
        if (told["event"], told["data"]) != (name, data):
            raise Wrong(f"{event_id} tells something else than the outbox")
    confirmed = {data["payment_id"] for name, data in events.values() if name.startswith("pay")}
    if lost := sorted(senders.said["paid"] - confirmed):
        raise Wrong(f"{len(lost)} payments were acknowledged and not told, such as {lost[0]}")
    for what, word in (("created", "made"), ("revoked", "revoked")):
        name = f"agent.session.{what}"
        sessions = {data["session_id"] for told, data in events.values() if told == name}
        if lost := sorted(senders.said[word] - sessions):
            raise Wrong(f"{len(lost)} sessions were {word} and it was not told, such as {lost[0]}")
    if wrong := wrong_transitions(file, began_ms):
        raise Wrong(f"{len(wrong)} sessions were not told once of each transition: {wrong[0]}")
    return {
        "kills": kills,
        "payments acknowledged": len(senders.said["paid"]),
        **{f"sessions {name}": count for name, count in transitions(file).items()},
        "events": len(events),
        "events heard": len(senders.heard),
        "attempts": sink.attempts,
    }


def outbox(file: Path) -> dict[str, tuple[str, Any]]:
    """Every event that was committed, by its id: its name and what it tells."""
    with contextlib.closing(sqlite3.connect(file)) as raw:
        rows = raw.execute("SELECT stream, seq, event, payload_json FROM outbox").fetchall()
    return {
        f"evt_{stream}_{seq}": (name, msgspec.json.decode(payload))
        for stream, seq, name, payload in rows
    }


def main() -> None:
    """As a script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, default=200)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        figures = kill(Path(directory) / "data", seed=asked.seed, kills=asked.kills)
    figures["seconds"] = round(time.monotonic() - began)
    sys.stdout.writelines(f"{name}: {value}\n" for name, value in figures.items())


if __name__ == "__main__":
    main()
