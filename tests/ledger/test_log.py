"""A log that is not the one that was signed does not start; what is sealed is not hashed again."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.audit.checkpoint import Checkpoint, sign
from engine.audit.record import record_hash
from engine.clock import ManualClock
from engine.engine import open_engine
from engine.errors import CannotStart
from engine.ledger import log
from engine.ledger.seal import batch_seal
from tests.audit import rfc6962
from tests.audit.committed import leaf
from tests.ledger.asking import START_MS
from tests.ledger.oracle import Records, alter, query, read_records
from tests.world import World, settings_for

STORES = ("sqlite",)

FIRST, SIZE = 11, 17
AT = "id = (SELECT id FROM records ORDER BY id LIMIT 1 OFFSET ?)"


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
        [(body,)] = query(data_file, f"SELECT body FROM records WHERE {AT}", index)
        changed = body.replace(b'_micro_usd":1', b'_micro_usd":2', 1).replace(b'000"', b'001"', 1)
        if changed == body:
            changed = re.sub(
                rb'(?<="salt":")[0-9a-f]', lambda digit: b"1" if digit[0] == b"0" else b"0", body
            )
        assert changed != body
        assert alter(data_file, f"UPDATE records SET body = ? WHERE {AT}", changed, index) == 1

    return change


def edit_with_its_hash(index: int) -> Callable[[Path], object]:
    """The same, by somebody who knows what the hashes beside the records are for."""

    def change(data_file: Path) -> None:
        edit(index)(data_file)
        rehash(data_file)

    return change


def rehash(data_file: Path) -> None:
    """Write down the hashes that the records have now."""
    for batch, first in query(data_file, "SELECT id, first_leaf FROM log_batches"):
        bodies = query(
            data_file,
            "SELECT body FROM records WHERE id / 1048576 = ? / 1048576 ORDER BY id",
            batch,
        )
        hashes = b"".join(leaf(body) for (body,) in bodies)
        change = "UPDATE log_batches SET leaf_hashes = ? WHERE id = ? AND first_leaf IS ?"
        assert alter(data_file, change, hashes, batch, first) == 1


def statements(*lines: str) -> Callable[[Path], object]:
    def change(data_file: Path) -> None:
        for line in lines:
            assert alter(data_file, line) > 0, line

    return change


def delete_with_its_hash(index: int) -> Callable[[Path], object]:
    """A record that is gone, and whose batch never had it."""

    def change(data_file: Path) -> None:
        [(record,)] = query(data_file, f"SELECT id FROM records WHERE {AT}", index)
        batch = record - record % 1048576
        assert alter(data_file, f"DELETE FROM records WHERE {AT}", index) == 1
        move = "UPDATE records SET id = id - 1 WHERE id > ? AND id < ?"
        alter(data_file, move, record, batch + 1048576)
        alter(data_file, "DELETE FROM log_batches WHERE id = ? AND length(leaf_hashes) = 32", batch)
        later = "UPDATE log_batches SET first_leaf = first_leaf - 1 WHERE first_leaf > ?"
        alter(data_file, later, index)
        rehash(data_file)

    return change


def deleted(which: str, index: int) -> Callable[[Path], object]:
    at = AT.replace("id = (", f"id {which} (")
    return lambda data_file: alter(data_file, f"DELETE FROM records WHERE {at}", index)


def swapped(data_file: Path) -> None:
    """Two batches of one size have changed places."""
    swap = "UPDATE log_batches SET first_leaf = ? WHERE first_leaf = ?"
    paid = "SELECT first_leaf FROM log_batches WHERE first_leaf < ? AND length(leaf_hashes) = 64"
    (one,), (other,) = query(data_file, f"{paid} LIMIT 2", FIRST)
    for to, of in ((-1, one), (one, other), (other, -1)):
        assert alter(data_file, swap, to, of) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *((edit(index), f"record {index} .* was changed") for index in range(SIZE)),
        (edit(SIZE), "record 0 of batch .* was changed"),
        *((edit_with_its_hash(index), "differ from the checkpoint") for index in range(SIZE)),
        (deleted("=", 0), "record 0 is missing"),
        (deleted("=", 7), "record 7 is missing"),
        (deleted("=", SIZE - 1), f"record {SIZE - 1} is missing"),
        (deleted(">=", 0), "record 0 is missing"),
        (delete_with_its_hash(3), f"differ from the checkpoint at size {FIRST}"),
        (delete_with_its_hash(SIZE - 1), f"differ from the checkpoint at size {SIZE}"),
        (
            statements("DELETE FROM log_batches WHERE id = (SELECT id FROM log_batches LIMIT 1)"),
            "outside every batch",
        ),
        (statements("DELETE FROM log_batches WHERE first_leaf IS NULL"), "outside every batch"),
        (
            statements("DELETE FROM log_batches", "DELETE FROM records"),
            f"differ from the checkpoint at size {FIRST}",
        ),
        (swapped, f"differ from the checkpoint at size {FIRST}"),
        (statements("UPDATE checkpoints SET root = zeroblob(32)"), "differ from the checkpoint"),
    ],
    ids=[
        *(f"edited {index}" for index in range(SIZE + 1)),
        *(f"edited with its hash {index}" for index in range(SIZE)),
        "first deleted",
        "one deleted",
        "last signed deleted",
        "all records deleted",
        "one deleted with its hash",
        "last signed deleted with its hash",
        "a batch deleted",
        "the last batch deleted",
        "all deleted",
        "two swapped",
        "root changed",
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


_LAST = "WHERE id = (SELECT max(id) FROM log_batches)"
_ANOTHER = "INSERT INTO log_batches (id, first_leaf, time_ms, leaf_hashes, seal) SELECT max(id)"
_NEWEST = "WHERE size = (SELECT max(size) FROM checkpoints)"


@pytest.mark.parametrize(
    "change",
    [
        *(f"UPDATE log_batches SET leaf_hashes = {value} {_LAST}" for value in ("64", "1.5", "''")),
        f"UPDATE log_batches SET leaf_hashes = substr(leaf_hashes, 2) {_LAST}",
        f"UPDATE log_batches SET leaf_hashes = hex(leaf_hashes) {_LAST}",
        *(f"UPDATE log_batches SET first_leaf = {value} {_LAST}" for value in ("-5", "'a'", "1.5")),
        f"UPDATE log_batches SET first_leaf = 999 {_LAST}",
        f"{_ANOTHER} + 1048576, NULL, max(time_ms), '', x'' FROM log_batches",
        f"{_ANOTHER} + 1048576, NULL, max(time_ms), x'00', x'' FROM log_batches",
        *(f"UPDATE checkpoints SET size = {value} {_NEWEST}" for value in ("-1", "1.5", "'a'")),
    ],
)
def test_rows_that_no_log_can_have_are_refused(data_file: Path, change: str) -> None:
    statements(change)(data_file)
    with pytest.raises(CannotStart, match="audit log"):
        start(data_file)


@pytest.mark.parametrize("resigned", [False, True], ids=["roots alone", "signed with another key"])
def test_a_log_that_was_rewritten_with_its_roots_does_not_start_without_the_key(
    data_file: Path, resigned: bool
) -> None:
    edit_with_its_hash(2)(data_file)
    leaves = [leaf(raw) for _, raw in read_records(data_file)]
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


def test_the_newest_checkpoint_is_signed_with_the_key_of_the_log(data_file: Path) -> None:
    [(origin,)] = query(data_file, "SELECT value FROM meta WHERE key = 'origin'")
    [(root,)] = query(data_file, "SELECT root FROM checkpoints WHERE size = ?", SIZE)
    note = sign(Checkpoint(origin, SIZE, root), origin, Ed25519PrivateKey.generate())
    assert alter(data_file, "UPDATE checkpoints SET note = ? WHERE size = ?", note, SIZE) == 1
    with pytest.raises(CannotStart, match=f"the checkpoint at size {SIZE}: not signed by "):
        start(data_file)


def test_records_under_a_seal_are_not_hashed_again_and_others_are(
    data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []
    monkeypatch.setattr(log, "record_hash", lambda raw: hashed.append(raw) or record_hash(raw))
    start(data_file)
    sealed = len(hashed)
    assert alter(data_file, "UPDATE log_batches SET seal = zeroblob(32)") > 0
    hashed.clear()
    with structlog.testing.capture_logs() as said:
        start(data_file)
    assert len(hashed) == sealed + SIZE + 1
    assert [line["event"] for line in said].count("log_batches_unsealed") == 1


def test_a_seal_is_of_one_batch_and_of_everything_in_it() -> None:
    key, bodies = bytes(32), [b"one", b"two"]
    seals = [
        batch_seal(key, 1, b"hashes", bodies),
        batch_seal(bytes(31) + b"x", 1, b"hashes", bodies),
        batch_seal(key, 2, b"hashes", bodies),
        batch_seal(key, 1, b"hashed", bodies),
        batch_seal(key, 1, b"hashes", [b"onet", b"wo"]),
        batch_seal(key, 1, b"hashes", [b"onetwo"]),
        batch_seal(key, 1, b"hashesone", [b"two"]),
        batch_seal(key, 1, b"hashes", [b"two", b"one"]),
    ]
    assert len(set(seals)) == len(seals)
