"""How many payments were decided, by the code of the decision."""

import threading
from collections import Counter
from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from engine.db.database import Database, Read
from engine.db.tables import BATCH_RECORDS_MAX, LogBatch, Record, table

_BATCHES_PER_READ_MAX = 1_000

_batches = table(LogBatch)
_records = table(Record)


class _Decision(msgspec.Struct):
    code: str


class _Decided(msgspec.Struct):
    decision: _Decision


class _Told(msgspec.Struct):
    kind: str
    body: msgspec.Raw


_told = msgspec.json.Decoder(_Told)
_decided = msgspec.json.Decoder(_Decided)


class DecisionCounts:
    """Counts from the log what was decided since it was made, in the order of the log.

    Nobody who decides has to count. Every process that shares a database counts the same.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()
        with database.reading() as connection:
            newest = connection.execute(sa.select(sa.func.max(_batches.c.first_leaf))).scalar_one()
        self._next_leaf: int = 0 if newest is None else newest + 1

    def since_start(self) -> Mapping[str, int]:
        """By code; up to the records that have their place in the log."""
        with self._counting, self._database.reading() as connection:
            while self._count(connection.execute):
                pass
            return dict(self._counts)

    def _count(self, read: Read) -> bool:
        """Count the decisions of the next batches; says whether there were any."""
        newer = (
            sa.select(_batches.c.id, _batches.c.first_leaf)
            .where(_batches.c.first_leaf >= self._next_leaf)
            .order_by(_batches.c.first_leaf)
            .limit(_BATCHES_PER_READ_MAX)
        )
        batches = read(newer).all()
        for batch in batches:
            last = batch.id + BATCH_RECORDS_MAX - 1
            bodies = read(
                sa.select(_records.c.body).where(_records.c.id.between(batch.id, last))
            ).scalars()
            for body in bodies:
                record = _told.decode(body)
                if record.kind == "payment.decided":
                    self._counts[_decided.decode(record.body).decision.code] += 1
            self._next_leaf = batch.first_leaf + 1
        return bool(batches)
