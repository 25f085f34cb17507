"""Writes a log of many records, and lets processes of their own verify and check all of it.

    scripts/many-records --sessions 5 --payments 100000

A payment is two records, its decision and its capture. The log is anchored once. `tallystick
verify` reads the evidence of each session against the chain, one after the other, and `tallystick
fsck` the whole database; of each the figures are its time and the most memory that it held at once.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.chain.embedded_rpc import EmbeddedRpc
from tests.world import NO_LIMITS, WORKSPACE, World

COMMAND = Path(sys.executable).with_name("tallystick")
HOLD_TTL_S = 604_800
"""Longer than all of it takes."""
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
TICKED = 5_000
WAITING_MAX = 1_024
"""So many payments are asked for before the first of them is answered."""


@dataclass(frozen=True)
class Ran:
    """A process that ended: its exit status, what it printed last, and what it took."""

    status: int
    said: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        taken = f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} s of CPU)"
        return f"{self.said}; {taken}, at most {self.peak_bytes / 2**20:,.0f} MiB"


def ran(arguments: Sequence[str | Path]) -> Ran:
    """Run the command, and measure it."""
    started = time.monotonic()
    known = {name: value for name, value in os.environ.items() if "TALLYSTICK" not in name}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([COMMAND, *arguments], stdout=out, env=known)
        status = Path(f"/proc/{process.pid}/status")
        peak_kib = 0
        # What the system says in the end counts the memory of this process, which it began with.
        while not (ended := os.waitid(os.P_PID, process.pid, ENDED)):
            found = re.search(r"VmHWM:\s+([0-9]+) kB", status.read_text())
            peak_kib = max(peak_kib, int(found[1]) if found else 0)
            time.sleep(0.02)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = ended.si_status
        seconds = time.monotonic() - started
        out.seek(0)
        lines = out.read().decode().splitlines()
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(ended.si_status, lines[-1] if lines else "", seconds, cpu, peak_kib * 1024)


def pay(world: World, session_id: str, payments: int) -> None:
    """So many payments of a dollar, each captured at once."""
    memo: dict[str, Any] = {"description": None, "metadata_json": "{}"}
    waiting: deque[Future[Any]] = deque()
    request = world.request(1)
    for number in range(payments):
        if number % TICKED == 0:
            world.engine.tick()  # who has not read the chain for five minutes is paid nothing
        answer = world.engine.ledger.authorise(
            session_id, request, memo=memo, key=None, capture=True
        )
        waiting.append(answer)
        if len(waiting) == WAITING_MAX:
            assert waiting.popleft().result().state == "captured"
    for answer in waiting:
        assert answer.result().state == "captured"


def run(directory: Path, sessions: int, payments: int) -> list[Ran]:
    """Write, verify each session, and check the database; says what it takes on the way."""
    world = World(directory / "data", hold_ttl_s=HOLD_TTL_S)
    started = time.monotonic()
    views = [world.session(NO_LIMITS, mint_pkp=True) for _ in range(sessions)]
    for view in views:
        pay(world, view.id, payments)
    world.engine.anchor()
    world.engine.tick()
    records = world.engine.ready()["records"]
    say(f"{records:,} records written in {time.monotonic() - started:.0f} s")
    rpc = world.engine.serve_embedded_chain()
    assert isinstance(rpc, EmbeddedRpc)
    found = []
    for view in views:
        file = directory / "evidence.json"
        file.write_bytes(world.engine.evidence(WORKSPACE, view.id))
        registry = world.engine.deployment.registry
        verified = ran(("verify", file, "--rpc", rpc.url, "--registry", registry))
        about = f"{2 * payments:,} payment records in {file.stat().st_size / 2**20:,.0f} MiB"
        say(f"verify, {about}: {verified}")
        found.append(verified)
    checked = ran(("fsck", "--data-dir", directory / "data"))
    say(f"fsck: {checked}")
    rpc.stop()
    world.engine.close()
    return [*found, checked]


def say(line: str) -> None:
    """At once, since it takes long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 if anything was not found to be whole."""
    parser = argparse.ArgumentParser(
        prog="scripts/many-records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sessions", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--payments", type=int, default=100_000, help="of each (%(default)s)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallystick-many-records-") as directory:
        found = run(Path(directory), asked.sessions, asked.payments)
    return int(any(each.status for each in found))


if __name__ == "__main__":
    sys.exit(main())
