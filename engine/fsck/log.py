"""The log: batches and their records, their places in the tree, and the root at every signed size.

Hashes of leaves are taken as the batches hold them; that they are those of the records is checked
where the records are read (`engine.fsck.streams`).
"""

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

from engine.audit.checkpoint import Checkpoint, NoteError, open_note
from engine.audit.merkle import EMPTY_ROOT, HASH_BYTES, node_hash
from engine.db.tables import BATCH_RECORDS_MAX, Anchor, CheckpointRow, LogBatch, Record, table
from engine.fsck.finding import UNSAID, Findings, stored
from engine.fsck.installation import Installation

_anchors = table(Anchor)
_batches = table(LogBatch)
_checkpoints = table(CheckpointRow)
_records = table(Record)
_batch_of = (_records.c.id - _records.c.id % BATCH_RECORDS_MAX).label("batch")

Roots = dict[int, bytes]
"""The root of the first so many leaves, for each size that was asked for and that there is."""


class Frontier:
    """The right edge of an RFC 6962 tree: enough to add leaves and to know the root.

    It holds one hash for each bit of the size that is set, whatever the number of leaves.
    """

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        full = self.size
        while full & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            full >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of all leaves so far (RFC 6962 §2.1)."""
        if not self._peaks:
            return EMPTY_ROOT
        *left, root = self._peaks
        for peak in reversed(left):
            root = node_hash(peak, root)
        return root


def check_batches(connection: sa.Connection, findings: Findings) -> int:
    """Every batch has its records and every record its batch; returns how many records there are.

    The ids of a batch's records are its own and those that follow, without a gap.
    """
    counted = connection.execute(
        sa.select(
            _batch_of,
            sa.func.count().label("members"),
            sa.func.max(_records.c.id).label("last"),
        )
        .group_by(_batch_of)
        .order_by(_batch_of)
        .execution_options(yield_per=1_000)
    )
    ids = sa.select(_batches.c.id, sa.func.length(_batches.c.leaf_hashes).label("bytes"))
    batches = connection.execute(ids.order_by(_batches.c.id).execution_options(yield_per=1_000))
    total = 0
    there = next(counted, None)
    for batch in batches:
        while there is not None and there.batch < batch.id:
            _outside(findings, there)
            total += there.members
            there = next(counted, None)
        length, odd = divmod(batch.bytes or 0, HASH_BYTES)
        if odd:
            findings.add(
                "log_batches",
                batch.id,
                "leaf_hashes",
                found=f"{batch.bytes} bytes",
                expected=f"a multiple of {HASH_BYTES}",
                says="it does not hold whole hashes",
            )
        if there is None or there.batch != batch.id:
            findings.missing("records", batch.id, f"batch {batch.id} has no records")
            findings.unexpected("log_batches", batch.id, "no record is in this batch")
            continue
        if (there.members, there.last) != (length, batch.id + length - 1):
            _name_members(connection, findings, batch.id, length)
        total += there.members
        there = next(counted, None)
    while there is not None:
        _outside(findings, there)
        total += there.members
        there = next(counted, None)
    return total


def _outside(findings: Findings, group: Any) -> None:
    findings.missing("log_batches", group.batch, f"{group.members} records are of this batch")
    findings.unexpected("records", group.batch, f"{group.members} records are outside every batch")


def _name_members(connection: sa.Connection, findings: Findings, batch: int, length: int) -> None:
    within = _records.c.id.between(batch, batch + BATCH_RECORDS_MAX - 1)
    there = set(connection.execute(sa.select(_records.c.id).where(within)).scalars())
    wanted = set(range(batch, batch + length))
    for missing in sorted(wanted - there):
        findings.missing("records", missing, f"batch {batch} holds a hash for this record")
    for extra in sorted(there - wanted):
        findings.unexpected("records", extra, f"batch {batch} holds no hash for this record")
    findings.add(
        "log_batches",
        batch,
        "leaf_hashes",
        found=f"{length} hashes",
        expected=f"{len(there)} records",
        says="it holds more or fewer hashes than there are records",
    )


def signed_sizes(connection: sa.Connection) -> set[int]:
    """The sizes of all checkpoints and anchors."""
    sizes = set(connection.execute(sa.select(_checkpoints.c.size)).scalars())
    sizes.update(connection.execute(sa.select(_anchors.c.size)).scalars())
    return sizes


def check_places(
    connection: sa.Connection, findings: Findings, sizes: Collection[int]
) -> tuple[int, Roots]:
    """The batches stand in the tree one behind the other; returns its size and its roots.

    Where one process writes alone they stand in the order of their ids, and those without a place
    come last; and none that is signed for is without.
    """
    alone = connection.dialect.name == "sqlite"
    frontier, roots, last = Frontier(), {}, 0
    if 0 in sizes:
        roots[0] = frontier.root()
    misplaced = None
    for batch in _placed(connection):
        if misplaced is not None or batch["first_leaf"] != frontier.size:
            misplaced = misplaced or batch  # what comes after it has no place to stand
            continue
        if alone and batch["id"] < last:
            _misplaced(findings, batch, None)
        last = batch["id"]
        hashes = batch["leaf_hashes"] if isinstance(batch["leaf_hashes"], bytes) else b""
        for at in range(0, len(hashes) - HASH_BYTES + 1, HASH_BYTES):
            frontier.append(hashes[at : at + HASH_BYTES])
            if frontier.size in sizes:
                roots[frontier.size] = frontier.root()
    if misplaced is not None:
        _misplaced(findings, misplaced, frontier.size)
    signed = max(sizes, default=0) > frontier.size
    waiting = sa.select(_batches.c.id).where(_batches.c.first_leaf.is_(None))
    for batch_id in connection.execute(waiting).scalars().all():
        if signed or (alone and batch_id < last):
            _misplaced(findings, {"id": batch_id, "first_leaf": None}, None)
    return frontier.size, roots


def _placed(connection: sa.Connection) -> Iterator[Any]:
    query = (
        sa.select(*stored(_batches))
        .where(_batches.c.first_leaf.is_not(None))
        .order_by(_batches.c.first_leaf)
        .execution_options(yield_per=1_000)
    )
    yield from connection.execute(query).mappings()


def _misplaced(findings: Findings, batch: Any, expected: int | None) -> None:
    findings.add(
        "log_batches",
        batch["id"],
        "first_leaf",
        found=batch["first_leaf"],
        expected="another place" if expected is None else expected,
        says="the batches do not stand one behind the other in the tree",
    )


def check_checkpoints(
    connection: sa.Connection, findings: Findings, installation: Installation, roots: Roots
) -> None:
    """Every checkpoint is signed by the log's key and has the root that the records make."""
    for row in connection.execute(
        sa.select(*stored(_checkpoints)).order_by(_checkpoints.c.size)
    ).mappings():
        size = row["size"]
        root = roots.get(size)
        if root is None:
            findings.add(
                "checkpoints",
                size,
                "size",
                found=size,
                expected="at most the number of records",
                says="records of this checkpoint are missing from the log",
            )
            continue
        expected = {"size": size, "root": root, "note": UNSAID, "created_ms": UNSAID}
        findings.compare("checkpoints", size, expected, row, by="the records under it")
        if (wrong := _wrong(row["note"], installation, size, root)) is not None:
            findings.add(
                "checkpoints",
                size,
                "note",
                found=row["note"],
                expected="signed by the log's key for this size and root",
                says=wrong,
            )


def _wrong(note: str, installation: Installation, size: int, root: bytes) -> str | None:
    try:
        signed = open_note(note, installation.verifier_key)
        expected = Checkpoint(installation.origin, size, root)
    except NoteError as error:
        return str(error)
    return None if signed == expected else "it is signed for another size, root or log"
