"""What was published of the log: its checkpoints and their anchors, as they are stored."""

from dataclasses import dataclass

import sqlalchemy as sa

from engine.db.database import Database
from engine.db.tables import Anchor, CheckpointRow, table

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
