"""What was acknowledged is there: after a restart, a kill, and for every other process."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.storage.limits import Limits, QuotaExceeded
from tests.storage import writer
from tests.storage.conftest import Open
from tests.storage.stores import DURABLE, new_payer, open_storage

pytestmark = pytest.mark.anyio

SHARED = ("postgres", "valkey", "valkey-cluster")


@pytest.mark.parametrize("kind", DURABLE)
async def test_a_restart_forgets_nothing(open_store: Open, clock: ManualClock) -> None:
    payer = new_payer()
    storage = open_store()
    session = storage.session(payer)
    await session.set_many({f"k{n}": "\0é" for n in range(4)}, ttl_ms=60_000)
    cursor = (await session.list(limit=1)).cursor
    await storage.close()
    session = open_store().session(payer)
    assert list((await session.list(cursor=cursor)).entries) == ["k1", "k2", "k3"]
    clock.advance(59_999)
    assert await session.get("k3") == "\0é"
    clock.advance(1)
    assert list((await session.list()).entries) == ["k3"]


@pytest.mark.parametrize("kind", SHARED)
async def test_two_processes_share_one_store(open_store: Open) -> None:
    payer = new_payer()
    one, two = open_store().session(payer), open_store().session(payer)
    await one.set_many({"a": "1", "b": "2"})
    assert await two.get("a") == "1"
    cursor = (await one.list(limit=1)).cursor
    assert (await two.list(cursor=cursor)).entries == {"b": "2"}


@pytest.mark.parametrize("kind", SHARED)
async def test_together_they_never_get_past_a_quota(open_store: Open) -> None:
    payer = new_payer()
    limits = Limits(payer_entries_max=12)
    sessions = [open_store(limits=limits).session(payer) for _ in range(3)]

    async def put(n: int) -> bool:
        try:
            await sessions[n % 3].set(f"{n:03}", "")
        except QuotaExceeded:
            return False
        return True

    stored = await asyncio.gather(*map(put, range(30)))
    assert sum(stored) == 12
    entries = (await sessions[0].list()).entries
    assert set(entries) == {f"{n:03}" for n, ok in enumerate(stored) if ok}


@pytest.mark.parametrize("kind", DURABLE)
async def test_what_is_closed_says_so(kind: str, open_store: Open) -> None:
    storage = open_store()
    session = storage.session(new_payer())
    await session.set("a", "1")
    await storage.close()
    await storage.close()
    if kind in ("sqlite", "postgres"):
        for ask in (session.get("a"), session.set("a", "2"), session.list()):
            with pytest.raises(Unavailable, match="closed"):
                await ask


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_acknowledged_survives_a_kill(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = str(tmp_path / "storage.sqlite3")
    if kind == "postgres":
        place = request.getfixturevalue("database_url")
    acknowledged: dict[int, int] = {}
    for kill in range(1, 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.writer", kind, place], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            for _ in range(100 * kill):
                task, number = map(int, process.stdout.readline().split())
                acknowledged[task] = number
            process.kill()
            for line in process.stdout:
                if re.fullmatch(rb"\d+ \d+\n", line):
                    task, number = map(int, line.split())
                    acknowledged[task] = number
        assert acknowledged.keys() == set(range(writer.TASKS))
        asyncio.run(check(kind, place, acknowledged))


async def check(kind: str, place: str, acknowledged: dict[int, int]) -> None:
    """Each task's last entries are those that were acknowledged, or the next ones as a whole."""
    storage = open_storage(kind, place)
    try:
        for task, last in acknowledged.items():
            session = storage.session(writer.payer(task))
            numbers = range(max(1, last - 32), last + 1)
            expected = {k: v for n in numbers for k, v in writer.batch(task, n).items()}
            assert await session.get_many(expected) == expected
            following = writer.batch(task, last + 1)
            found = await session.get_many(following)
            before = writer.batch(task, last - 39) if last >= 40 else dict.fromkeys(following)
            assert found in (following, before), "a batch is there as a whole or not at all"
    finally:
        await storage.close()
