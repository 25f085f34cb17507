"""A log that is not the one that was signed does not start; and what does start is re-hashed."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.audit.checkpoint import Checkpoint, sign
from engine.clock import ManualClock
from engine.engine import open_engine
from engine.errors import CannotStart
from tests.audit import rfc6962
from tests.ledger.asking import START_MS
from tests.ledger.oracle import Records, alter, query, read_records
from tests.world import World, settings_for

FIRST, SIZE = 11, 17


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed installation: checkpoints at sizes `FIRST` and `SIZE`, and one record more."""
    directory = tmp_path_factory.mktemp("log") / "data"
    world = World(directory, ManualClock(START_MS))
    views = [world.session(), world.session()]
    for number in range(6):
        world.pay(views[number % 2], 1 + number)
        if number == 2:
            world.engine.anchor()
    world.engine.anchor()
    world.pay(views[0], 9, hold=True)
    world.engine.close()
    return directory


@pytest.fixture
def data_file(original: Path, tmp_path: Path) -> Path:
    """The data file of a copy that may be changed."""
    copy = tmp_path / "data"
    shutil.copytree(original, copy)
    return copy / "ledger.sqlite3"


def start(data_file: Path) -> None:
    open_engine(settings_for(data_file.parent), clock=ManualClock(START_MS)).close()


def test_the_log_that_was_signed_starts_and_its_roots_are_those_of_rfc_6962(
    data_file: Path,
) -> None:
    start(data_file)
    records = Records()
    records.feed(read_records(data_file))
    assert len(records.leaves) == SIZE + 1
    checkpoints = query(data_file, "SELECT size, root FROM checkpoints ORDER BY size")
    assert [size for size, _ in checkpoints] == [FIRST, SIZE]
    assert all(records.root(size) == root for size, root in checkpoints)


def edit(index: int) -> Callable[[Path], object]:
    """One digit of one amount."""

    def change(data_file: Path) -> None:
        [(body,)] = query(data_file, "SELECT body FROM records WHERE leaf_index = ?", index)
        changed = body.replace(b'_micro_usd":1', b'_micro_usd":2', 1).replace(b'000"', b'001"', 1)
        changed = changed if changed != body else body.replace(b'"salt":"', b'"salt":"0', 1)
        assert changed != body
        done = alter(data_file, "UPDATE records SET body = ? WHERE leaf_index = ?", changed, index)
        assert done == 1

    return change


def statements(*lines: str) -> Callable[[Path], object]:
    def change(data_file: Path) -> None:
        for line in lines:
            assert alter(data_file, line) > 0, line

    return change


RENUMBER = "UPDATE records SET leaf_index = -leaf_index WHERE leaf_index"
BACK = "UPDATE records SET leaf_index = -leaf_index - 1 WHERE leaf_index < 0"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *((edit(index), "differ from the checkpoint") for index in range(SIZE)),
        (statements("DELETE FROM records WHERE leaf_index = 0"), "record 0 is missing"),
        (statements("DELETE FROM records WHERE leaf_index = 7"), "record 7 is missing"),
        (
            statements(f"DELETE FROM records WHERE leaf_index = {SIZE - 1}"),
            f"record {SIZE - 1} is missing",
        ),
        (statements(f"DELETE FROM records WHERE leaf_index >= {SIZE - 1}"), "differ from"),
        (statements("DELETE FROM records"), f"differ from the checkpoint at size {FIRST}"),
        (
            statements("DELETE FROM records WHERE leaf_index = 3", f"{RENUMBER} > 3", BACK),
            f"differ from the checkpoint at size {FIRST}",
        ),
        (
            statements(
                f"{RENUMBER} = 2",
                "UPDATE records SET leaf_index = 2 WHERE leaf_index = 3",
                "UPDATE records SET leaf_index = 3 WHERE leaf_index = -2",
            ),
            f"differ from the checkpoint at size {FIRST}",
        ),
        (statements("UPDATE checkpoints SET root = zeroblob(32)"), "differ from the checkpoint"),
        (
            statements(f"UPDATE records SET body = X'7B7D' WHERE leaf_index = {SIZE}"),
            "not a record",
        ),
    ],
    ids=[
        *(f"edited {index}" for index in range(SIZE)),
        "first deleted",
        "one deleted",
        "last signed deleted",
        "tail cut",
        "all deleted",
        "one deleted, the rest renumbered",
        "two swapped",
        "root changed",
        "the last is no record",
    ],
)
def test_a_log_that_is_not_the_one_that_was_signed_does_not_start(
    data_file: Path, change: Callable[[Path], object], why: str
) -> None:
    change(data_file)
    with pytest.raises(CannotStart, match=why):
        start(data_file)
    with pytest.raises(CannotStart, match=why):
        start(data_file)


@pytest.mark.parametrize("resigned", [False, True], ids=["roots alone", "signed with another key"])
def test_a_log_that_was_rewritten_with_its_roots_does_not_start_without_the_key(
    data_file: Path, resigned: bool
) -> None:
    edit(2)(data_file)
    leaves = [hashlib.sha256(b"\x00" + raw).digest() for _, raw in read_records(data_file)]
    [(origin,)] = query(data_file, "SELECT value FROM meta WHERE key = 'origin'")
    for size in (FIRST, SIZE):
        root = rfc6962.root(rfc6962.subtrees(leaves), size)
        change = "UPDATE checkpoints SET root = ? WHERE size = ?"
        assert alter(data_file, change, root, size) == 1
        note = sign(Checkpoint(origin, size, root), origin, Ed25519PrivateKey.generate())
        if resigned:
            change = "UPDATE checkpoints SET note = ? WHERE size = ?"
            assert alter(data_file, change, note, size) == 1
    with pytest.raises(CannotStart, match=f"size {SIZE}"):
        start(data_file)
