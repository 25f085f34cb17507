"""Has each system call on the data directory fail once, or be the last one of its process.

    scripts/every-call --seed 7

A process opens an installation, pays, captures, voids, opens a session, anchors and closes, all on
one thread so that its calls come in one order. A first one is only watched, with strace(1). Then,
for each call that it made to the files of its data directory, another one has that call answered
with EIO or ENOSPC, or is killed by it. It may refuse, and go on; what it said must be true when the
directory is opened again: every answer is found by its key, nothing is there by halves, the records
are right by the oracle, what is left can be anchored, and `fsck` finds nothing. After a sync of the
ledger that failed, it must have said nothing more that had to be written.
"""

import argparse
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from engine.chain.embedded import EmbeddedChain
from engine.engine import Engine, open_engine
from engine.errors import CannotStart, TallystickError
from engine.fsck.check import Chain, check
from engine.policy.limits import Limits
from tests.durability.payers import Question, submit
from tests.durability.processes import forked
from tests.ledger.oracle import Records, query, read_records, require
from tests.simulation.installation import SteppedWriter
from tests.world import USD, WORKSPACE, World, settings_for

CALLS = (
    *("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "fallocate"),
    *("openat", "unlink", "rename", "mkdir"),
)
OUTCOMES = ("EIO", "ENOSPC", "KILL")
CHECKPOINT_ROWS = "engine.db.sqlite.CHECKPOINT_ROWS"
PATIENCE_S = 60
HOLD_TTL_S = 604_800
"""Longer than all of it takes: a hold of the one installation that is copied must not run out."""
MISSING_MAX = 10
"""At most one call in so many may be one that the process does not make that time."""
DAY = Limits(None, 100 * USD, None, None, None)

_INJECTED = re.compile(r"(\w+)\((.*)\(INJECTED\)")
_SAID = re.compile(r'sendto\(.*"(\{.*\})\\n"')


@dataclass(frozen=True)
class Injection:
    """The call of this name that is made for the `nth` time, and what becomes of it."""

    call: str
    nth: int
    outcome: str

    def __str__(self) -> str:
        return f"{self.call} {self.nth} {self.outcome}"

    @property
    def option(self) -> str:
        """For strace."""
        how = "signal=KILL" if self.outcome == "KILL" else f"error={self.outcome}"
        return f"inject={self.call}:{how}:when={self.nth}"


def live(directory: Path, talk: socket.socket, views: Sequence[str], holds: Sequence[str]) -> None:
    """What the process does once it is told to; it says each answer in one piece."""
    talk.recv(1)

    def say(**line: Any) -> None:
        talk.sendall(json.dumps(line).encode() + b"\n")

    try:
        # So often is the write-ahead log folded that its calls are among those that fail.
        with patch("engine.engine.Writer", SteppedWriter), patch(CHECKPOINT_ROWS, 4):
            engine = open_engine(settings_for(directory))
            _pay(engine, say, views, holds)
            engine.close()
        say(closed=True)
    except CannotStart as refusal:
        say(refused=refusal.code, why=refusal.message)
    except Exception as defect:  # noqa: BLE001 (it is what is looked for)
        say(defect=repr(defect))


def _pay(engine: Engine, say: Any, views: Sequence[str], holds: Sequence[str]) -> None:
    ledger = engine.ledger
    steps = [
        (
            "at once",
            lambda: submit(engine, Question("at once", views[0], 30 * USD, False)).result(),
        ),
        ("held", lambda: submit(engine, Question("held", views[1], 7 * USD, True)).result()),
        ("capture", lambda: ledger.capture(WORKSPACE, holds[0], 4 * USD).result()),
        ("void", lambda: ledger.void(WORKSPACE, holds[1]).result()),
        ("denied", lambda: submit(engine, Question("denied", views[0], 99 * USD, False)).result()),
    ]
    for again in (False, True):
        for name, step in steps:
            try:
                payment = step()
            except TallystickError as refusal:
                say(step=name, again=again, refused=refusal.code)
            else:
                said = {"id": payment.id, "state": payment.state, "replayed": payment.replayed}
                say(step=name, again=again, **said)
        try:
            anchor = engine.anchor()
            assert anchor is not None
        except TallystickError as refusal:
            say(step="anchor", again=again, refused=refusal.code)
        else:
            say(step="anchor", again=again, size=anchor.size)


class Missing(Exception):
    """The process made no such call."""


class EveryCall:
    """Takes copies of one installation through one injection each. `figures` counts them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.origin = directory / "origin"
        self.figures: Counter[str] = Counter()
        world = World(self.origin, hold_ttl_s=HOLD_TTL_S)
        self.views = [world.session(DAY).id for _ in range(2)]
        view = world.engine.sessions.get(WORKSPACE, self.views[0])
        self.holds = [world.pay(view, 10, hold=True).id for _ in range(2)]
        world.engine.anchor()
        world.pay(view, 1, key="before")
        world.engine.close()

    def calls(self) -> Counter[str]:
        """How often the process makes each call when nothing happens to it."""
        with self._copy() as data:
            lines, status, trace = self._run(data, None)
            require(status == 0 and lines[-1] == {"closed": True}, f"it ends well: {lines}")
            self._judge(data, lines)
        names = [line.split("(")[0].split()[-1] for line in trace if "(" in line]
        return Counter(name for name in names if name in CALLS)

    def inject(self, injection: Injection) -> None:
        """One process with one injection.

        Raises:
            Broken: something that was said is not true, or what is left is not whole.
            Missing: the process came to an end before that call.
        """
        with self._copy() as data:
            lines, status, trace = self._run(data, injection)
            killed = status == -signal.SIGKILL
            if not killed and not any("(INJECTED)" in line for line in trace):
                raise Missing(injection)
            require(killed or status == 0, f"{injection}: it ended with {status}")
            defects = [line["defect"] for line in lines if "defect" in line]
            require(not defects, f"{injection}: {defects}")
            self._silent_after_a_lost_sync(injection, trace)
            self._judge(data, lines)
        refused = sum("refused" in line for line in lines)
        self.figures[injection.outcome] += 1
        self.figures["answers refused"] += refused
        self.figures["injections that nobody noticed"] += not refused and not killed

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        data = self.directory / "data"
        shutil.copytree(self.origin, data)
        try:
            yield data
        finally:
            shutil.rmtree(data)

    def _run(
        self, data: Path, injection: Injection | None
    ) -> tuple[list[dict[str, Any]], int, list[str]]:
        """What the process said, how it ended, and its calls."""
        ours, theirs = socket.socketpair()
        process = forked().Process(
            target=live, args=(data, theirs, self.views, self.holds), daemon=True
        )
        process.start()
        said_on = os.fstat(theirs.fileno()).st_ino
        theirs.close()
        assert process.pid is not None
        trace = self.directory / "trace"
        with _traced(process.pid, (data, f"socket:[{said_on}]"), trace, injection), ours:
            ours.sendall(b"!")
            text = b""
            ours.settimeout(PATIENCE_S)
            while piece := ours.recv(1 << 16):
                text += piece
            process.join(PATIENCE_S)
        status = process.exitcode
        assert status is not None, "it does not end"
        lines = [json.loads(line) for line in text.splitlines()]
        return lines, status, trace.read_text(errors="replace").splitlines()

    def _silent_after_a_lost_sync(self, injection: Injection, trace: Sequence[str]) -> None:
        """Nothing that had to be written is acknowledged after a sync of the ledger failed.

        Where the write-ahead log failed to be folded, what was synced before may still be said.
        """
        if injection.call not in ("fsync", "fdatasync") or injection.outcome == "KILL":
            return
        failed, durable, answers = False, True, 0
        for line in trace:
            if (found := _INJECTED.search(line)) and "ledger.sqlite3" in found[2]:
                failed, answers = True, int(durable)
                self.figures["syncs of the ledger that failed"] += 1
                self.figures["of them between two commits"] += durable
            elif "ledger.sqlite3-wal" in line:
                durable = line.endswith(" = 0") if "sync(" in line else False
            elif failed and "sendto(" in line:
                answers -= "replayed" in line and "false" in line.partition("replayed")[2][:10]
                require(answers >= 0, f"{injection}: after the sync it said {line}")

    def _judge(self, data: Path, lines: Sequence[dict[str, Any]]) -> None:
        """What was said is so, and the directory is whole."""
        told = {}
        for line in lines:
            if "state" in line:
                known = told.setdefault(line["step"], line)
                same = all(line[name] == known[name] for name in ("id", "state"))
                require(same, f"{line['step']} was {known}, then {line}")
        world = World(data)
        try:
            self._same(world, told)
            anchor = world.engine.anchor()
            require(anchor is not None and anchor.state == "final", f"it is anchored: {anchor}")
            sizes = [line["size"] for line in lines if "size" in line]
            anchored = {size for (size,) in query(world.store, "SELECT size FROM anchors")}
            require(anchored >= set(sizes), f"{sizes} were anchored, {anchored} are")
            records = Records()
            records.feed(read_records(world.store))
            assert isinstance(world.engine.gateway, EmbeddedChain)
            chain = Chain(world.engine.gateway, world.engine.deployment.registry)
            report = check(world.store, chain=chain)
            require(report.clean, f"fsck: {report.findings}")
        finally:
            world.engine.close()

    def _same(self, world: World, told: dict[str, dict[str, Any]]) -> None:
        """By their keys the answers are the same, and what nobody heard is there or not."""
        asked = {
            "at once": Question("at once", self.views[0], 30 * USD, False),
            "held": Question("held", self.views[1], 7 * USD, True),
            "denied": Question("denied", self.views[0], 99 * USD, False),
        }
        for name, question in asked.items():
            payment = submit(world.engine, question).result()
            if name in told:
                said = told[name]["id"], told[name]["state"], True
                found = payment.id, payment.state, payment.replayed
                require(found == said, f"{name}: {found}, but it was {said}")
        for name, payment_id in zip(("capture", "void"), self.holds, strict=True):
            state = world.engine.payments.get(WORKSPACE, payment_id).state
            expected = {"capture": "captured", "void": "voided"}[name]
            require(state in (expected, "held"), f"{name}: {state}")
            require(name not in told or state == expected, f"{name} was {expected}, and is {state}")


@contextmanager
def _traced(
    pid: int, places: tuple[Path, str], trace: Path, injection: Injection | None
) -> Iterator[None]:
    """Watch what a process does to a directory, and what it sends, from now on."""
    data, said_on = places
    trace.unlink(missing_ok=True)
    names = ("ledger.sqlite3", "chain.sqlite3", "store.sqlite3")
    paths = [said_on, data, data / "lock", *(data / f"{n}{end}" for n in names for end in _BESIDE)]
    flags = [option for path in paths for option in ("-P", str(path))]
    wanted = ["-e", "trace=" + ",".join((*CALLS, "sendto"))]
    if injection is not None:
        wanted += ["-e", injection.option]
    command = ["strace", "-f", "-y", "-s", "200", "-e", "signal=none", *wanted, *flags]
    with subprocess.Popen(
        [*command, "-o", str(trace), "-p", str(pid)], stderr=subprocess.PIPE, text=True
    ) as tracing:
        assert tracing.stderr is not None
        said = tracing.stderr.readline()
        assert "attached" in said, said
        yield
        tracing.wait(PATIENCE_S)


_BESIDE = ("", "-wal", "-shm", "-journal")


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Have each system call fail, or be the last.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="of the order")
    parser.add_argument("--injections", type=int, default=None, help="so many, drawn; or all")
    arguments = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {arguments.seed}\n")
    sys.stdout.flush()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tallystick-calls-") as directory:
        every = EveryCall(Path(directory))
        calls = every.calls()
        injections = [
            Injection(call, nth, outcome)
            for call, count in calls.items()
            for nth in range(1, count + 1)
            for outcome in OUTCOMES
        ]
        random.Random(arguments.seed).shuffle(injections)
        chosen = injections[: arguments.injections]
        for injection in chosen:
            try:
                every.inject(injection)
            except Missing:  # no two lives write to quite as many pages
                every.figures["calls that were not made this time"] += 1
    figures: dict[str, Any] = {f"calls of {name}": count for name, count in calls.items()}
    figures |= every.figures | {"seconds": round(time.monotonic() - started)}
    say(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    missing = every.figures["calls that were not made this time"]
    require(missing * MISSING_MAX <= len(chosen), f"{missing} calls were not made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
