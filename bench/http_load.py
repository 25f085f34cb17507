"""Generates HTTP load, in a process of its own: keep-alive connections, one request each at a time.

    python -m bench.http_load < plan.json > rate.json

The plan says where, for how long, and between which parts of a request the idempotency key goes.
Raw sockets and prepared bytes: a client library would be what is measured. How much of a core this
took is in the answer, and the contender `http-floor` shows how fast it can get.
"""

import asyncio
import gc
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.contender import Rate, Workload

CONNECTIONS = 64
KEY = "{key}"
"""Stands in a request where its idempotency key goes."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Each of `requests` holds `KEY` once; they are sent in a random order."""

    host: str
    port: int
    requests: Sequence[str]
    seconds: float
    seed: int
    run: int


def measure(
    workload: Workload, url: str, requests: Sequence[str], run: int, seconds: float
) -> Rate:
    """Generate load in another process and return what it measured."""
    at = urlsplit(url)
    plan = Plan(at.hostname or "", at.port or 0, requests, seconds, workload.seed, run)
    done = subprocess.run(
        [sys.executable, "-m", "bench.http_load"],
        input=json.dumps(asdict(plan)),
        cwd=Path(__file__).parents[1],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Rate(**json.loads(done.stdout))


def request(method: str, path: str, headers: dict[str, str], body: object) -> str:
    """A whole request as text (RFC 9112)."""
    content = json.dumps(body)
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", content])


class _Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again until the time is up."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._wanted = 0
        self._asked = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self) -> None:
        self._received, self._wanted = b"", 0
        self._asked = time.perf_counter()
        self.transport.write(self._load.next_request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._received, 0, end + 2)
            if not self._received.startswith(b"HTTP/1.1 2") or length is None:
                self._fail(f"it answered {self._received[:1000]!r}")
                return
            self._wanted = end + 4 + int(length[1])
        if len(self._received) >= self._wanted:
            now = time.perf_counter()
            self._load.latencies_ms.append((now - self._asked) * 1000)
            if now < self._load.deadline:
                self.ask()
            elif not self.done.done():
                self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"it closed the connection: {error}")

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(reason))


class _Load:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._draw = Workload(plan.seed, 1, Path()).draw(plan.run)
        self._requests = [
            tuple(part.encode() for part in text.split(KEY)) for text in plan.requests
        ]
        self._number = itertools.count()
        self.latencies_ms: list[float] = []
        self.deadline = 0.0

    def next_request(self) -> bytes:
        before, after = self._draw.choice(self._requests)
        return b"%b%d-%012d%b" % (before, self._plan.run, next(self._number), after)

    async def run(self) -> Rate:
        loop = asyncio.get_running_loop()
        connections = [
            (
                await loop.create_connection(
                    lambda: _Connection(self), self._plan.host, self._plan.port
                )
            )[1]
            for _ in range(CONNECTIONS)
        ]
        started, worked = time.perf_counter(), time.process_time()
        self.deadline = started + self._plan.seconds
        for connection in connections:
            connection.ask()
        await asyncio.gather(*(connection.done for connection in connections))
        taken, busy = time.perf_counter() - started, time.process_time() - worked
        for connection in connections:
            connection.transport.abort()
        return Rate(len(self.latencies_ms), taken, self.latencies_ms, busy / taken)


def main() -> None:
    """Read the plan, generate the load, write what was measured."""
    plan = Plan(**json.load(sys.stdin))
    gc.disable()  # a pause of ours would be taken for one of the server's
    rate = asyncio.run(_Load(plan).run())
    json.dump(asdict(rate), sys.stdout)


if __name__ == "__main__":
    main()
