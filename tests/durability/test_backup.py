"""A copy that is made while the original is paid from is one state of it, and all of it."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from engine.db.backup import CannotBackUp, back_up
from engine.db.sqlite import SqliteDatabase
from engine.fsck.check import check
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.anvil_world import anvil_with_contracts, wait_until
from tests.cli.processes import called, one_line
from tests.ledger.oracle import Records, query, read_records
from tests.world import USD, World

COPIES = 3
CALLERS = 4
ANSWERS_BETWEEN = 50
DAY = Limits(None, 10_000 * USD, None, None, None)


@contextmanager
def paying(world: World, view: SessionView) -> Iterator[list[str]]:
    """Threads that pay until the block ends; the ids of what was answered."""
    answered: list[str] = []
    enough = threading.Event()

    def pay(caller: int) -> None:
        for number in count():
            if enough.is_set():
                return
            answered.append(world.pay(view, 1, key=f"{caller}-{number}", hold=number % 2 == 0).id)

    callers = [threading.Thread(target=pay, args=(number,)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield answered
    finally:
        enough.set()
        for caller in callers:
            caller.join()


def test_copies_under_load_are_whole_and_hold_all_that_was_answered(tmp_path: Path) -> None:
    told: list[int] = []
    with anvil_with_contracts() as anvil:
        with anvil.world(tmp_path / "data") as world:
            view = world.session(DAY)
            world.engine.start()
            with paying(world, view) as answered:
                for number in range(COPIES):
                    wait_until(lambda: len(answered) >= (len(told) + 1) * ANSWERS_BETWEEN)
                    told.append(len(answered))
                    back_up(tmp_path / "data", tmp_path / f"{number}")
        truth = read_records(world.store)
        for number in range(COPIES):
            store = tmp_path / f"{number}" / "ledger.sqlite3"
            rows = read_records(store)
            assert rows == truth[: len(rows)]
            records = Records()
            records.feed(rows)
            assert set(answered[: told[number]]) <= records.decided.keys()
            assert check(store).clean
            with anvil.world(tmp_path / f"{number}") as copy:
                left = copy.engine.remaining(view).per_day
                assert left == records.budgets[view.id].remaining(copy.engine.clock())["per_day"]
                assert copy.pay(view, 1, key="new").state == "captured"


def test_an_embedded_chain_is_copied_when_its_server_has_stopped(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    view = world.session(DAY, mint_pkp=True)
    with pytest.raises(CannotBackUp, match="stop the server"):
        back_up(tmp_path / "data", tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []
    world.engine.close()
    files = sorted(path.name for path in (tmp_path / "data").iterdir())
    back_up(tmp_path / "data", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == files
    copy = World(tmp_path / "copy")
    assert copy.pay(view, 1).state == "captured"
    copy.engine.tick(anchor=True)
    assert copy.engine.ready()["anchored"] == copy.engine.ready()["records"]
    copy.engine.close()


def test_the_command_copies_for_the_owner_alone_and_into_nothing_that_is_there(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "data")
    payment = world.pay(world.session(), 5, key="k")
    world.engine.close()
    done = called("backup", tmp_path / "copy", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    source, *copied = done.stdout.splitlines()
    assert source == f"copied from {tmp_path / 'data'}:"
    copies = list(map(Path, copied))
    assert [copies[0].name, copies[-1].name] == ["chain.sqlite3", "ledger.sqlite3"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    numbers = query(tmp_path / "copy" / "ledger.sqlite3", "SELECT number FROM decisions")
    assert numbers == [(payment.number,)]
    done = called("backup", tmp_path / "copy", "--data-dir", tmp_path / "data")
    assert (done.returncode, "is not empty" in done.stderr) == (1, True)
    done = called("backup", tmp_path / "other", "--data-dir", tmp_path / "nowhere")
    assert (done.returncode, "there is no ledger" in done.stderr) == (1, True)
    done = called("backup", tmp_path / "other", database="postgresql://localhost/x")
    assert (done.returncode, "pg_dump" in done.stderr) == (2, True)
    assert not (tmp_path / "other").exists()


def test_each_copy_is_on_the_disk_when_it_is_whole_and_in_the_end_the_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World(tmp_path / "data").engine.close()
    synced: list[tuple[int, int]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        synced.append(which(os.fstat(descriptor)))

    def which(found: os.stat_result) -> tuple[int, int]:
        return found.st_ino, found.st_size

    monkeypatch.setattr(os, "fsync", note)
    copies = back_up(tmp_path / "data", tmp_path / "copy")
    assert len(copies) > 1
    assert synced == [which(path.stat()) for path in (*copies, tmp_path / "copy")]


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    World(tmp_path / "data").engine.close()
    (tmp_path / "data" / "chain.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(CannotBackUp, match="not a database"):
        back_up(tmp_path / "data", tmp_path / "copy")


def test_a_copy_whose_keys_nothing_opens_is_made_and_is_no_backup(tmp_path: Path) -> None:
    """The file of the key, or the salt that makes it of a passphrase; each needs only its own."""
    for kek, needed in ((None, "kek"), ("a secret that somebody keeps", "kek.salt")):
        data = tmp_path / needed / "data"
        World(data, kek=kek).engine.close()
        done = called("backup", tmp_path / needed / "whole", "--data-dir", data)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / needed / "whole" / needed).is_file()
        (data / needed).unlink()
        done = called("backup", tmp_path / needed / "copy", "--data-dir", data)
        line = one_line(done, 1)
        assert line.startswith("cannot_back_up: all is copied to ")
        assert f"{data / needed} " in line
        assert check(tmp_path / needed / "copy" / "ledger.sqlite3").records > 0


def test_before_a_key_was_sealed_none_is_missing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    SqliteDatabase(tmp_path / "data" / "ledger.sqlite3").close()
    copies = back_up(tmp_path / "data", tmp_path / "copy")
    assert [path.name for path in copies] == ["ledger.sqlite3"]
