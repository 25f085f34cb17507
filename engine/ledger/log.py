"""The audit log in the database: its tree, and the place of each record in it.

Records are committed in batches, by however many processes, and have no place yet. The sequencer
gives each batch the next leaves of the tree, in the order in which it finds them, so a transaction
that took its time is never skipped: it comes later. Two batches of one stream keep their order,
because the second could only be numbered when the first was committed.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError
from engine.audit.checkpoint import Checkpoint, NoteError, open_note
from engine.audit.merkle import HASH_BYTES, Tree
from engine.audit.record import Head, record_hash
from engine.db.database import Read
from engine.db.tables import BudgetEntry, CheckpointRow, LogBatch, Record, table
from engine.errors import CannotStart, Unavailable
from engine.ledger.stream import BUDGET_PREFIX

_RECORDS_COMPARED = 4096

_batches = table(LogBatch)
_entries = table(BudgetEntry)
_records = table(Record)
_places = _batches.c.first_leaf, _batches.c.leaf_hashes
_bytes = sa.func.length(_batches.c.leaf_hashes).label("bytes")
_last = (
    sa.select(_batches.c.first_leaf, _bytes)
    .where(_batches.c.first_leaf.is_not(None))
    .order_by(_batches.c.first_leaf.desc())
    .limit(1)
)
_waiting = (
    sa.select(_batches.c.id, _bytes).where(_batches.c.first_leaf.is_(None)).order_by(_batches.c.id)
)


class Log:
    """The RFC 6962 tree over all records that have their place. May be used from any thread.

    Its first `size` leaves never change.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.tree = Tree()
        self.size = 0
        self._following = threading.Lock()

    def load(self, read: Read, verifier_key: str) -> None:
        """Rebuild the tree from the raw bytes of the records and compare it with every checkpoint.

        The newest must be signed with the log's key: it stands for all records before it.

        Raises:
            CannotStart: a record is missing or changed, or they are not those of a checkpoint.
        """
        self._compare_hashes(read)
        self.follow(read)
        checkpoints = table(CheckpointRow)
        rows = read(sa.select(checkpoints).order_by(checkpoints.c.size)).all()
        for row in rows:
            if row.size > self.size or self.tree.root(row.size) != row.root:
                raise CannotStart(
                    f"audit log: the records differ from the checkpoint at size {row.size}"
                )
        for row in rows[-1:]:
            try:
                signed = open_note(row.note, verifier_key)
            except NoteError as error:
                raise CannotStart(
                    f"audit log: the checkpoint at size {row.size}: {error}"
                ) from error
            if signed != Checkpoint(self.origin, row.size, row.root):
                raise CannotStart(f"audit log: another root was signed at size {row.size}")

    def follow(self, read: Read) -> None:
        """Add the leaves that records were given since.

        Raises:
            CannotStart: a batch is missing.
        """
        with self._following:
            newer = sa.select(*_places).where(_batches.c.first_leaf >= self.size)
            for row in read(newer.order_by(_batches.c.first_leaf)):
                if row.first_leaf != self.tree.size:
                    raise CannotStart(f"audit log: record {self.tree.size} is missing")
                self.tree.extend(_split(row.leaf_hashes))
            self.size = self.tree.size  # only now: whoever reads it reads the tree

    @staticmethod
    def _compare_hashes(read: Read) -> None:
        """Every record must be there and have the hash that was written down with it.

        This is done at each start: it goes through what is stored in the order it is stored in, and
        compares lists, since a step of Python for each record would take longer than all the rest.
        """
        batches = read(sa.select(_batches.c.id, *_places).order_by(_batches.c.id)).all()
        ids: list[int] = []
        hashes: list[bytes] = []
        for batch in batches:
            leaves = _split(batch.leaf_hashes)
            ids.extend(range(batch.id, batch.id + len(leaves)))
            hashes.extend(leaves)
        count = 0
        stored = sa.select(_records.c.id, _records.c.body).order_by(_records.c.id)
        rows = read(stored.execution_options(yield_per=_RECORDS_COMPARED))
        for part in rows.partitions():
            found_ids, bodies = zip(*part, strict=True)
            found = list(map(_hash, bodies))
            end = count + len(found)
            if list(found_ids) != ids[count:end] or found != hashes[count:end]:
                if not set(ids).issuperset(found_ids):
                    raise CannotStart("audit log: there are records outside every batch")
                expected = zip(ids[count:end], hashes[count:end], strict=True)
                _tell_first(batches, expected, dict(zip(found_ids, found, strict=True)))
            count = end
        if count != len(ids):
            raise CannotStart(f"audit log: {_named(batches, ids[count])} is missing")


def _tell_first(
    batches: Sequence[Any], expected: Iterable[tuple[int, bytes]], found: Mapping[int, bytes | None]
) -> NoReturn:
    """Name the first record that is not what was expected; there is one."""
    wrong = next(record_id for record_id, known in expected if found.get(record_id) != known)
    raise CannotStart(f"audit log: {_named(batches, wrong)} is missing or was changed")


def _named(batches: Sequence[Any], record_id: int) -> str:
    """A record by its place in the tree, or in its batch if that has none yet."""
    batch = batches[bisect_right(batches, record_id, key=lambda each: each.id) - 1]
    position = record_id - batch.id
    if batch.first_leaf is None:
        return f"record {position} of batch {batch.id}"
    return f"record {batch.first_leaf + position}"


def sequence(read: Read, update: Callable[[sa.Update], None]) -> None:
    """Give every batch that has none its place. Whoever calls must be the only one to."""
    size = _placed(read)
    for row in read(_waiting).all():
        update(sa.update(_batches).where(_batches.c.id == row.id).values(first_leaf=size))
        size += row.bytes // HASH_BYTES


def committed(read: Read) -> int:
    """How many records there are, with a place or without."""
    waiting: int = sum(row.bytes for row in read(_waiting))
    return _placed(read) + waiting // HASH_BYTES


def _placed(read: Read) -> int:
    last = read(_last).first()
    return 0 if last is None else int(last.first_leaf + last.bytes // HASH_BYTES)


def stored_head(read: Read, stream: str) -> Head:
    """Where a stream ends by its last record, or a budget by its last entry.

    Raises:
        Unavailable: that record is none any more.
    """
    if stream.startswith(BUDGET_PREFIX):
        latest = read(sa.select(sa.func.max(_entries.c.seq)).where(_entries.c.budget == stream))
        seq = latest.scalar_one()
        return Head() if seq is None else Head(seq + 1, b"")
    last = read(
        sa.select(_records.c.seq, _records.c.body)
        .where(_records.c.stream == stream)
        .order_by(_records.c.seq.desc())
        .limit(1)
    ).first()
    if last is None:
        return Head()
    prev = _hash(last.body)
    if prev is None:
        raise Unavailable(
            f"record {last.seq} of {stream} is damaged in the database", code="session_damaged"
        )
    return Head(last.seq + 1, prev)


def _hash(body: bytes) -> bytes | None:
    """The hash of a stored record; None if it is none."""
    try:
        return record_hash(body)
    except CanonicalError:
        return None


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
