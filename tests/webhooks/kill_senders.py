"""Kills engines by SIGKILL while they deliver to a receiver that fails three times in ten.

    scripts/webhooks-kill --seed 7 --kills 200

Each engine pays and delivers until it is killed at a drawn moment, sometimes before it is open; the
next one opens the same directory an hour later by its clock. In the end one delivers what is left.
Then every event that was committed must have arrived, each time under its id and with the same
bytes, and nothing else; and every payment that was acknowledged must be among them. Each engine is
listened to, from the last place that was heard of the one before: that must tell the same events,
each once and in the order of the log.
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
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from standardwebhooks.webhooks import Webhook

from engine.clock import system_clock
from tests.webhooks.receiver import Received, Receiver
from tests.world import WORKSPACE, World, begin

FAILURES = 0.3
LIFE_S = (0.2, 1.5)
HOUR_MS = 3_600_000
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
        self.paid: set[str] = set()
        self.heard: list[str] = []
        self._last = -1

    def close(self) -> None:
        """Have it end."""
        self._process.communicate()

    def run(self, directory: Path, ahead_ms: int, what: str, life_s: float | None) -> None:
        """Fork one, and kill it after `life_s`; without that it has to end well."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{directory} {ahead_ms} {what} {self._last}\n".encode())
        self._process.stdin.flush()
        pid = int(next(self._lines()).removeprefix("pid "))
        if life_s is not None:
            time.sleep(life_s)
            os.kill(pid, signal.SIGKILL)
        for line in self._lines():
            word, _, told = line.partition(" ")
            if word == "paid":
                self.paid.add(told)
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
        if self._draw.random() < FAILURES:
            return 500
        self.taken.add(event_id)
        return 200


def kill(directory: Path, *, seed: int, kills: int) -> dict[str, Any]:
    """Do it; returns the figures.

    Raises:
        Wrong: something did not hold.
    """
    draw = random.Random(seed)
    begin(directory, system_clock)
    with Receiver() as receiver, contextlib.closing(Senders()) as senders:
        world = World(directory, webhook_networks="127.0.0.0/8")
        _, secret = world.engine.webhooks.create(WORKSPACE, receiver.url, ("*",), by="test")
        world.engine.close()
        sink = receiver.answer = Sink(draw, secret)
        for number in range(kills):
            senders.run(directory, number * HOUR_MS, "pay", draw.uniform(*LIFE_S))
        senders.run(directory, kills * HOUR_MS, "drain", None)
    events = outbox(directory / "ledger.sqlite3")
    if sink.wrong:
        raise Wrong(sink.wrong[0])
    if missing := sorted(events.keys() - sink.taken):
        raise Wrong(f"{len(missing)} of {len(events)} events did not arrive, such as {missing[0]}")
    if strange := sorted(sink.bodies.keys() - events.keys()):
        raise Wrong(f"{len(strange)} events arrived that there are not, such as {strange[0]}")
    if sorted(senders.heard) != sorted(events):
        raise Wrong(f"{len(senders.heard)} events were heard of {len(events)}")
    for event_id, (name, data) in events.items():
        told = msgspec.json.decode(sink.bodies[event_id])
        if (told["event"], told["data"]) != (name, data):
            raise Wrong(f"{event_id} tells something else than the outbox")
    confirmed = {data["payment_id"] for name, data in events.values() if name.startswith("pay")}
    if lost := sorted(senders.paid - confirmed):
        raise Wrong(f"{len(lost)} payments were acknowledged and not told, such as {lost[0]}")
    return {
        "kills": kills,
        "payments acknowledged": len(senders.paid),
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
