"""What was published of the log: its checkpoints and their anchors, and that it only ever grew."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from engine.db.database import Database
from engine.db.tables import Anchor, CheckpointRow, table
from engine.errors import InvalidInput, NotFound
from engine.ledger.log import Log

_anchors = table(Anchor)
_checkpoints = table(CheckpointRow)


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint: its signed note, and its anchor if there is one (`sent`, `mined`, `final`)."""

    size: int
    root: bytes
    note: str
    created_ms: int
    state: str | None
    tx_hash: bytes | None
    block_number: int | None


def published(database: Database, limit: int) -> list[Published]:
    """The newest checkpoints, the newest first."""
    c, a = _checkpoints.c, _anchors.c
    query = (
        sa.select(c.size, c.root, c.note, c.created_ms, a.state, a.tx_hash, a.block_number)
        .select_from(_checkpoints.outerjoin(_anchors, sa.and_(c.size == a.size, c.root == a.root)))
        .order_by(c.size.desc())
        .limit(limit)
    )
    with database.reading() as connection:
        return [Published(*row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class PublishedLog:
    """The log up to its newest checkpoint; what is behind that is nobody's business yet."""

    database: Database
    log: Log

    def checkpoint(self) -> str:
        """The newest checkpoint, as the log's key signed it (C2SP tlog-checkpoint).

        Raises:
            NotFound: none was signed yet.
        """
        for newest in published(self.database, 1):
            return newest.note
        raise NotFound("no checkpoint of the log was signed yet")

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        """The proof that the log of `new_size` records begins with that of `old_size` (RFC 6962
        section 2.1.2).

        Raises:
            InvalidInput: not 0 <= `old_size` <= `new_size` <= the newest checkpoint's size.
        """
        size = max((newest.size for newest in published(self.database, 1)), default=0)
        if not 0 <= new_size <= size:
            raise InvalidInput("new_size", f"the newest checkpoint is of {size} records")
        if not 0 <= old_size <= new_size:
            raise InvalidInput("old_size", f"is not within 0..{new_size}")
        with self.database.reading() as connection:
            self.log.follow(connection.execute)  # another process may have signed it
        return self.log.tree.consistency_proof(old_size, new_size)
