"""The anchors of a log that the index of the chain holds."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from engine.db.database import Read
from engine.db.tables import ChainEvent, table

FOLLOWED_MAX = 64
"""So many are looked at, the newest."""

_events = table(ChainEvent)
_log = structlog.get_logger(__name__)


class AnchorEvent(NamedTuple):
    """One of them: the size of the log, its root in hexadecimal, and where that stands."""

    size: int
    root: str
    row: Any


def anchored(read: Read, log_id: bytes) -> Iterator[AnchorEvent]:
    """The newest first. One whose row was damaged in the index tells nothing."""
    query = (
        sa.select(_events)
        .where(_events.c.subject == log_id, _events.c.name == "Anchored")
        .order_by(_events.c.block_number.desc(), _events.c.log_index.desc())
        .limit(FOLLOWED_MAX)
    )
    for row in read(query).all():
        try:
            args = json.loads(row.args_json)
            event = AnchorEvent(int(args["size"]), str(args["root"]), row)
        except (ValueError, KeyError, TypeError) as error:
            place = row.block_number, row.log_index
            _log.error("event_unreadable", event_name="Anchored", place=place, reason=repr(error))
        else:
            if event.size >= 0:  # or it was damaged, too
                yield event
