"""The audit log in the database: records appended in a transaction, and the tree over them."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from engine.audit.checkpoint import Checkpoint, NoteError, open_note
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.record import SALT_BYTES, Head, decode_record, encode_record
from engine.db.tables import CheckpointRow, Record, table
from engine.errors import CannotStart
from engine.identifiers import RandomBytes
from engine.ledger.stream import Stream

_records = table(Record)
_SALTS_DRAWN = 256


class Log:
    """All records in commit order and the RFC 6962 tree over them. Belongs to the writer's thread,
    except `tree`, whose first `committed` leaves never change and may be read from anywhere."""

    def __init__(self, origin: str, random_bytes: RandomBytes) -> None:
        self.origin = origin
        self.tree = Tree()
        self.committed = 0
        self.last_time_ms = 0  # of the last record that was loaded
        self._heads: dict[str, Head] = {}
        self._random_bytes = random_bytes
        self._salts: list[bytes] = []

    def load(self, connection: sa.Connection, verifier_key: str) -> None:
        """Rebuild the tree from the raw bytes and compare it with every checkpoint.

        The newest must be signed with the log's key: it stands for all records before it.

        Raises:
            CannotStart: a record is missing, or the records are not those of a checkpoint.
        """
        body = b""
        query = sa.select(_records.c.leaf_index, _records.c.body).order_by(_records.c.leaf_index)
        for index, body in connection.execution_options(yield_per=4096).execute(query):
            if index != self.tree.size:
                raise CannotStart(f"audit log: record {self.tree.size} is missing")
            self.tree.append(leaf_hash(body))
        self.committed = self.tree.size
        self.last_time_ms = decode_record(body).time_ms if self.committed else 0
        checkpoints = table(CheckpointRow)
        rows = connection.execute(sa.select(checkpoints).order_by(checkpoints.c.size)).all()
        for row in rows:
            if row.size > self.committed or self.tree.root(row.size) != row.root:
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

    def append(
        self,
        connection: sa.Connection,
        stream: Stream,
        *,
        time_ms: int,
        kind: str,
        body: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Append a record to the tree and return its row, which the caller must insert."""
        head = self._heads.get(stream.id) or self._stored_head(connection, stream.id)
        raw = encode_record(
            log=self.origin,
            workspace=stream.workspace_id,
            stream=stream.id,
            head=head,
            time_ms=time_ms,
            kind=kind,
            body=body,
            salt=self._salt(),
        )
        leaf = leaf_hash(raw)
        self._heads[stream.id] = Head(head.seq + 1, leaf)
        return {
            "leaf_index": self.tree.append(leaf),
            **stream.columns(),
            "stream": stream.id,
            "seq": head.seq,
            "body": raw,
        }

    def _salt(self) -> bytes:
        if not self._salts:  # asking the system for many at once costs as little as for one
            drawn = self._random_bytes(SALT_BYTES * _SALTS_DRAWN)
            self._salts = [drawn[i : i + SALT_BYTES] for i in range(0, len(drawn), SALT_BYTES)]
        return self._salts.pop()

    def head_seq(self, stream: str) -> int:
        """The number that the next record of a stream appended to in this batch will have."""
        return self._heads[stream].seq

    def commit(self) -> None:
        """Everything appended so far is durable."""
        self.committed = self.tree.size

    def roll_back(self) -> None:
        """Nothing appended since the last `commit` happened."""
        self.tree.truncate(self.committed)
        self._heads.clear()

    def _stored_head(self, connection: sa.Connection, stream: str) -> Head:
        last = connection.execute(
            sa.select(_records.c.seq, _records.c.body)
            .where(_records.c.stream == stream)
            .order_by(_records.c.seq.desc())
            .limit(1)
        ).first()
        return Head() if last is None else Head(last.seq + 1, leaf_hash(last.body))
