"""Some system calls fail, or are the last ones; all of them: `scripts/every-call`."""

import json
import random
import secrets
from contextlib import nullcontext

import pytest

from tests.durability.every_call import EveryCall, Injection
from tests.ledger.oracle import Broken

DRAWN = (("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "KILL"))


@pytest.fixture(scope="module")
def every_call(tmp_path_factory: pytest.TempPathFactory) -> EveryCall:
    return EveryCall(tmp_path_factory.mktemp("calls"))


def test_some_calls(every_call: EveryCall, capsys: pytest.CaptureFixture[str]) -> None:
    calls = every_call.calls()
    seed = secrets.randbelow(10**9)
    draw = random.Random(seed)
    for call, outcome in DRAWN:
        # The process may make a few calls less this time; half of them it always makes.
        injection = Injection(call, draw.randint(1, -(-calls[call] // 2)), outcome)
        try:
            every_call.inject(injection)
        except BaseException:
            with capsys.disabled():
                print(f"\n{injection}, seed {seed}")  # noqa: T201
            raise
    assert every_call.figures["KILL"] == 1


@pytest.mark.parametrize(
    "said",
    [
        {"step": "at once", "id": "pay_0_9", "state": "captured"},
        {"step": "capture", "id": "pay_0_9", "state": "captured"},
        {"step": "anchor", "size": 999},
    ],
    ids=["an answer", "an end", "an anchor"],
)
def test_what_was_said_and_is_not_so_is_heard(
    every_call: EveryCall, said: dict[str, object]
) -> None:
    with every_call._copy() as data, pytest.raises(Broken):
        every_call._judge(data, [said])


WRITTEN = '7 pwrite64(9</d/ledger.sqlite3-wal>, "..."..., 4096, 56) = 4096'
SYNCED = "7 fdatasync(9</d/ledger.sqlite3-wal>) = 0"
LOST = "7 fdatasync(9</d/ledger.sqlite3-wal>) = -1 EIO (Input/output error) (INJECTED)"
ANSWER = json.dumps(json.dumps({"step": "held", "state": "held", "replayed": False}))
SAID = f"7 sendto(3<socket:[1]>, {ANSWER}, 60, 0, NULL, 0) = 60"


@pytest.mark.parametrize(
    ("lines", "heard"),
    [
        ([WRITTEN, LOST, SAID], True),
        ([WRITTEN, SYNCED, SAID, WRITTEN, LOST, SAID], True),
        ([WRITTEN, SYNCED, LOST, SAID], False),
        ([WRITTEN, SYNCED, LOST, SAID, SAID], True),
        ([WRITTEN, SYNCED, LOST, WRITTEN, SYNCED, SAID, SAID], True),
    ],
)
def test_an_answer_after_a_sync_that_failed_is_heard(
    every_call: EveryCall, lines: list[str], heard: bool
) -> None:
    injection = Injection("fdatasync", 1, "EIO")
    with pytest.raises(Broken, match="after the sync") if heard else nullcontext():
        every_call._silent_after_a_lost_sync(injection, lines)
    every_call._silent_after_a_lost_sync(
        injection, [line.replace("ledger", "chain") for line in lines]
    )
