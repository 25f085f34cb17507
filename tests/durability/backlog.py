"""A start with everything still to do: holds that ran out, events and records that wait.

    scripts/backlog --holds 100000

A process makes so many holds and is killed with SIGKILL; all of them run out while nothing runs.
Then a server is started on what it left. It prints when that was ready, the memory it takes,
when no hold was open any more, and how long payments waited meanwhile.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from engine.clock import system_clock
from engine.ledger.ask import ask
from engine.policy.limits import Limits
from tests.durability.pools import SharedRecords
from tests.durability.processes import forked
from tests.ledger.oracle import query, read_records, require
from tests.ledger.served import OPERATOR, Served
from tests.world import USD, World

SESSIONS = 100
ASKED_AT_ONCE = 512
HOLDS_MADE_PER_S_MIN = 2_000
PATIENCE_S = 300
LIMITS = Limits(None, 10**6 * USD, None, None, None)
HELD = "SELECT count(*) FROM decisions WHERE state = 'held'"


def hold(directory: Path, count: int) -> None:
    """Make so many holds, a dollar each, and be killed."""
    world = World(directory, hold_ttl_s=2 + count // HOLDS_MADE_PER_S_MIN)
    views = [world.session(LIMITS) for _ in range(SESSIONS)]
    memo = {"description": None, "metadata_json": "{}"}
    for start in range(0, count, ASKED_AT_ONCE):
        numbers = range(start, min(start + ASKED_AT_ONCE, count))
        request = world.request(1)
        asks = [
            ask(views[n % SESSIONS].id, request, memo=memo, key=f"{n}", capture=False)
            for n in numbers
        ]
        answers = world.engine.ledger.authorise_many(asks).result()
        assert all(answer.state == "held" for answer in answers)
    os.kill(os.getpid(), signal.SIGKILL)


def left_by_a_kill(directory: Path, count: int) -> Path:
    """What such a process leaves, once all its holds have run out; where its ledger is."""
    process = forked().Process(target=hold, args=(directory, count))
    process.start()
    process.join()
    require(process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode}")
    file = directory / "ledger.sqlite3"
    require(query(file, HELD) == [(count,)], "every hold is open")
    [(last_ms,)] = query(file, "SELECT max(expires_ms) FROM decisions")
    time.sleep(max(0, last_ms + 100 - system_clock()) / 1000)
    return file


def started(directory: Path, count: int) -> dict[str, Any]:
    """A server on such a backlog; the figures of it."""
    file = left_by_a_kill(directory, count)
    figures: dict[str, Any] = {"holds": count}
    begun = time.monotonic()
    server = Served(directory)
    try:
        server.ready()
        figures["ready after s"] = round(time.monotonic() - begun, 2)
        waited = []
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            body = {"agent_id": "late", "user_wallet": "0x" + "11" * 20}
            made = client.post("/api/v1/ai/sessions", json=body, headers=OPERATOR).json()
            whose = {"X-Session-Token": made["session_token"]}
            while query(file, HELD) != [(0,)]:
                require(time.monotonic() - begun < PATIENCE_S, "every hold ends")
                asked = time.monotonic()
                answer = client.post("/api/v1/payments", json={"amount": "0.01"}, headers=whose)
                waited.append(time.monotonic() - asked)
                require(answer.status_code == 201, answer.text)
                payment = answer.json()["id"]
                client.post(f"/api/v1/payments/{payment}/void", headers=whose)
        figures["no hold open after s"] = round(time.monotonic() - begun, 2)
        figures["payments meanwhile"] = len(waited)
        figures["slowest payment ms"] = round(max(waited, default=0) * 1000)
        memory = psutil.Process(server.pid).memory_info()
        figures["memory MiB"] = round(memory.rss / (1 << 20))
        require(server.stop() == 0, "the server stops when asked")
    finally:
        server.kill()
    records = SharedRecords({}, one_writer=True)
    records.feed(read_records(file))
    ends = [body["kind"] for body in records.ended.values()]
    figures["expired"] = ends.count("payment.expired")
    require(figures["expired"] == count, "every hold expired once")
    return figures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Start a server with everything still to do.")
    parser.add_argument("--holds", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallystick-backlog-") as directory:
        figures = started(Path(directory) / "data", arguments.holds)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
