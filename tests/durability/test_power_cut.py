"""A power cut at any instant loses nothing that was acknowledged (see `power_cut`)."""

import random
import secrets
from collections import Counter
from pathlib import Path

import pytest

from tests.durability.disk import Disk
from tests.durability.power_cut import PowerCut, Recording, record
from tests.durability.syscalls import Event, read_trace
from tests.ledger.oracle import Broken

PAYMENTS = 60
IMAGES = 200
SEED = secrets.randbelow(10**9)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A server's life, from its first start to its end."""
    return record(tmp_path_factory.mktemp("power"), seed=SEED, payments=PAYMENTS)


def test_nothing_acknowledged_is_lost(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        figures = PowerCut(recording, seed=SEED).check(IMAGES, opened=4)
    except BaseException:
        with capsys.disabled():
            print(f"\nscripts/power-cut --seed {SEED} --payments {PAYMENTS}")  # noqa: T201
        raise
    assert figures["answers"] >= PAYMENTS
    assert figures["images"] > IMAGES
    assert figures["instants: write"] > figures["instants: sync"] > 0


@pytest.mark.parametrize("kept", ["-wal", ""], ids=["the log's", "any"])
def test_every_answer_comes_after_the_sync_of_what_it_rests_on(
    recording: Recording, kept: str
) -> None:
    """At every answer an image without anything unsynced was looked at, and without syncs of the
    write-ahead log the first answer is lost: so there is one before each."""
    events = [e for e in recording.events() if not (e.what == "sync" and e.path.endswith(kept))]
    with pytest.raises(Broken, match=r"acknowledged|not there"):
        PowerCut(recording, seed=SEED).check(0, 0, events)


def test_an_answer_before_its_sync_is_heard(recording: Recording) -> None:
    """As a writer would have it that answers first and syncs then."""
    events = list(recording.events())
    answers = [n for n, event in enumerate(events) if event.data.startswith(b'{"id":"pay_')]
    answer = answers[len(answers) // 2]
    payment = events[answer].data[7:].partition(b'"')[0]
    in_log = [(n, event) for n, event in enumerate(events) if event.path.endswith("-wal")]
    written = next(n for n, event in in_log if payment in event.data)
    synced = next(n for n, event in in_log if event.what == "sync" and n > written)
    assert synced < answer
    events.insert(synced, events.pop(answer))
    with pytest.raises(Broken, match="acknowledged"):
        PowerCut(recording, seed=SEED).check(0, 0, events)


# The disk and the trace


def after(*events: Event) -> Disk:
    disk = Disk()
    for event in (Event("make", "f"), Event("syncing", "."), Event("sync", "."), *events):
        disk.happened(event)
    return disk


def images(disk: Disk, cut: str) -> Counter[bytes]:
    draw = random.Random(1)
    return Counter(disk.image(cut, draw).get("f", b"absent") for _ in range(400))


OLD, NEW = b"a" * 1024, b"b" * 1024
SYNC = (Event("syncing", "f"), Event("sync", "f"))


def test_what_was_synced_stays_and_what_was_not_may_be_torn() -> None:
    disk = after(Event("write", "f", 0, OLD), *SYNC, Event("write", "f", 0, NEW))
    assert images(disk, "nothing") == {OLD: 400}
    assert images(disk, "everything") == {NEW: 400}
    assert images(disk, "subset").keys() == {OLD, NEW}
    halves = {first * 512 + second * 512 for first in (b"a", b"b") for second in (b"a", b"b")}
    assert images(disk, "torn").keys() == halves


def test_a_sync_is_of_what_was_written_before_it_began() -> None:
    disk = after(Event("syncing", "f"), Event("write", "f", 0, NEW), Event("sync", "f"))
    assert images(disk, "nothing") == {b"": 400}


def test_a_truncation_and_a_name_need_a_sync_too() -> None:
    written = (Event("write", "f", 0, OLD), *SYNC)
    assert images(after(*written, Event("cut", "f", 5)), "nothing") == {OLD: 400}
    assert images(after(*written, Event("cut", "f", 5)), "everything") == {b"aaaaa": 400}
    gone = after(*written, Event("unlink", "f"))
    assert images(gone, "nothing") == {OLD: 400}
    assert images(gone, "subset").keys() == {OLD, b"absent"}
    made = Disk()
    made.happened(Event("make", "f"))
    assert images(made, "nothing") == {b"absent": 400}


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_calls_that_interleave_keep_their_order(tmp_path: Path) -> None:
    wal, socket = hexed(f"{tmp_path}/f-wal"), hexed("socket:[1]")
    flags = "O_RDWR|O_CREAT"
    trace = tmp_path.with_suffix(".trace")
    lines = [
        f'1 openat(AT_FDCWD<{hexed("/")}>, "{wal}", {flags}, 0600) = 5<{wal}>',
        f'1 openat(AT_FDCWD<{hexed("/")}>, "{wal}{hexed("x")}", {flags}) = -1 EACCES (Denied)',
        f'1 pwrite64(5<{wal}>, "{hexed("abc")}", 3, 24) = 3',
        f"1 fdatasync(5<{wal}> <unfinished ...>",
        f'2 sendto(7<{socket}>, "{hexed("HTTP/1.1 201")}", 12, 0, NULL, 0) = 12',
        "1 <... fdatasync resumed>) = 0",
        f"1 fsync(5<{wal}>) = -1 EIO (Input/output error)",
        f"1 ftruncate(5<{wal}>, 0) = 0",
        f'1 unlink("{wal}") = 0',
        f'1 pwrite64(9<{hexed("/elsewhere")}>, "{hexed("abc")}", 3, 0) = 3',
        "1 +++ exited with 0 +++",
    ]
    trace.write_text("\n".join(lines) + "\n")
    seen = [(e.what, e.path, e.offset, e.data) for e in read_trace(trace, tmp_path)]
    assert seen == [
        ("make", "f-wal", 0, b""),
        ("write", "f-wal", 24, b"abc"),
        ("syncing", "f-wal", 0, b""),
        ("send", "socket:[1]", 0, b"HTTP/1.1 201"),
        ("sync", "f-wal", 0, b""),
        ("syncing", "f-wal", 0, b""),
        ("cut", "f-wal", 0, b""),
        ("unlink", "f-wal", 0, b""),
    ]


def test_a_call_that_is_not_understood_is_no_guess(tmp_path: Path) -> None:
    trace = tmp_path.with_suffix(".trace")
    trace.write_text(f"1 fallocate(5<{hexed(f'{tmp_path}/f')}>, 0, 0, 4096) = 0\n")
    with pytest.raises(ValueError, match="fallocate"):
        list(read_trace(trace, tmp_path))
