"""The audit log in the database: its tree, and the place of each record in it.

Records are committed in batches, by however many processes, and have no place yet. The sequencer
gives each batch the next leaves of the tree, in the order in which it finds them, so a transaction
that took its time is never skipped: it comes later. Two batches of one stream keep their order,
because the second could only be numbered when the first was committed.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.canonical import CanonicalError
from engine.audit.checkpoint import Checkpoint, NoteError, open_note
from engine.audit.merkle import HASH_BYTES, Tree
from engine.audit.record import Head, record_hash
from engine.db.database import Read
from engine.db.tables import BudgetEntry, CheckpointRow, LogBatch, Record, table
from engine.errors import CannotStart, Unavailable
from engine.ledger.seal import batch_seal
from engine.ledger.stream import BUDGET_PREFIX

_RECORDS_COMPARED = 4096
_OUTSIDE = "audit log: there are records outside every batch"

_log = structlog.get_logger(__name__)

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
_waiting = sa.select(_batches.c.id, _bytes).where(_batches.c.first_leaf.is_(None)).subquery()
_up_to = sa.func.sum(_waiting.c.bytes, type_=sa.BigInteger).over(order_by=_waiting.c.id)
_before = sa.select(_waiting.c.id, (_up_to - _waiting.c.bytes).label("bytes")).subquery()
"""Each batch that has no place, and how many bytes of hashes those before it have."""


class Log:
    """The RFC 6962 tree over all records that have their place. May be used from any thread.

    Its first `size` leaves never change.
    """

    def __init__(self, origin: str, seal_key: bytes) -> None:
        self.origin = origin
        self._seal_key = seal_key
        self.tree = Tree()
        self.size = 0
        self._following = threading.Lock()

    def load(self, read: Read, verifier_key: str) -> None:
        """Rebuild the tree, hold the records against it and compare it with every checkpoint.

        The newest must be signed with the log's key: it stands for all records before it.

        Raises:
            CannotStart: a record is missing or changed, or they are not those of a checkpoint.
        """
        self._compare_records(read)
        self.follow(read)
        checkpoints = table(CheckpointRow)
        rows = read(sa.select(checkpoints).order_by(checkpoints.c.size)).all()
        for row in rows:
            known = isinstance(row.size, int) and 0 <= row.size <= self.size
            if not known or self.tree.root(row.size) != row.root:
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
            end, found = self.tree.size, []
            for row in read(newer.order_by(_batches.c.first_leaf)):
                if row.first_leaf != end:
                    raise CannotStart(f"audit log: record {end} is missing")
                if not _are_hashes(row.leaf_hashes):
                    raise CannotStart(f"audit log: the batch of record {end} was changed")
                end += len(row.leaf_hashes) // HASH_BYTES
                found.append(row.leaf_hashes)
            self.tree.extend_packed(b"".join(found))
            self.size = self.tree.size  # only now: whoever reads it reads the tree

    def _compare_records(self, read: Read) -> None:
        """Every record must be there and be the one whose hash its batch holds.

        This is done at each start: it goes through what is stored in the order it is stored in. The
        seal of a batch says that its hashes are those of its records; where it does not, they are
        hashed.
        """
        batches = read(sa.select(_batches).order_by(_batches.c.id)).all()
        stored = sa.select(_records.c.id, _records.c.body).order_by(_records.c.id)
        rows = read(stored.execution_options(yield_per=_RECORDS_COMPARED))
        unsealed = 0
        for batch in batches:
            if not (_are_hashes(batch.leaf_hashes) and _is_place(batch.first_leaf)):
                raise CannotStart(f"audit log: batch {batch.id} was changed")
            count = len(batch.leaf_hashes) // HASH_BYTES
            found = rows.fetchmany(count) if count else []
            ids, bodies = zip(*found, strict=True) if found else ((), ())
            same = ids == tuple(range(batch.id, batch.id + count))
            if not same or not self._sealed(batch, bodies):
                hashes = list(map(_hash, bodies))
                if not same or hashes != _split(batch.leaf_hashes):
                    raise _first_wrong(batches, batch, dict(zip(ids, hashes, strict=True)))
                unsealed += 1
        if rows.fetchone() is not None:
            raise CannotStart(_OUTSIDE)
        if unsealed:
            _log.warning("log_batches_unsealed", batches=unsealed)

    def _sealed(self, batch: Any, bodies: Sequence[bytes]) -> bool:
        try:
            seal = batch_seal(self._seal_key, batch.id, batch.leaf_hashes, bodies)
        except TypeError:
            return False
        return bool(seal == batch.seal)


def _first_wrong(
    batches: Sequence[Any], batch: Any, found: Mapping[int, bytes | None]
) -> CannotStart:
    """Name the first record of a batch that is not what it should be; there is one.

    `found` are the hashes of the records, by their ids, that stand where those of the batch should.
    """
    for record_id in found:
        owner = _batch_of(batches, record_id)
        if record_id - owner.id not in range(len(_split(owner.leaf_hashes))):
            return CannotStart(_OUTSIDE)
    wrong = next(
        position
        for position, leaf in enumerate(_split(batch.leaf_hashes))
        if found.get(batch.id + position) != leaf
    )
    if batch.first_leaf is None:
        named = f"record {wrong} of batch {batch.id}"
    else:
        named = f"record {batch.first_leaf + wrong}"
    return CannotStart(f"audit log: {named} is missing or was changed")


def _batch_of(batches: Sequence[Any], record_id: int) -> Any:
    """The last batch whose records' ids begin at this one or before; the first if there is none."""
    return batches[max(0, bisect_right(batches, record_id, key=lambda each: each.id) - 1)]


def sequence(read: Read, update: Callable[[sa.Update], None]) -> None:
    """Give every batch that has none its place. Whoever calls must be the only one to."""
    # In one statement: there are a hundred and more a second, and who decides waits meanwhile.
    place = sa.literal(_placed(read), sa.BigInteger) + _before.c.bytes // HASH_BYTES
    update(sa.update(_batches).where(_batches.c.id == _before.c.id).values(first_leaf=place))


def committed(read: Read) -> int:
    """How many records there are, with a place or without."""
    waiting = read(sa.select(sa.func.sum(_waiting.c.bytes))).scalar_one() or 0
    return _placed(read) + int(waiting) // HASH_BYTES


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
    return Head() if last is None else head_after(stream, last.seq, last.body)


def head_after(stream: str, seq: int, body: bytes) -> Head:
    """Where a stream ends whose last record is number `seq`, with these bytes.

    Raises:
        Unavailable: they are no record any more.
    """
    prev = _hash(body)
    if prev is None:
        raise Unavailable(
            f"record {seq} of {stream} is damaged in the database", code="session_damaged"
        )
    return Head(seq + 1, prev)


def _hash(body: bytes) -> bytes | None:
    """The hash of a stored record; None if it is none."""
    try:
        return record_hash(body)
    except CanonicalError:
        return None


def _are_hashes(stored: object) -> bool:
    return isinstance(stored, bytes) and len(stored) % HASH_BYTES == 0


def _is_place(stored: object) -> bool:
    return stored is None or (isinstance(stored, int) and stored >= 0)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
