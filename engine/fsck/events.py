"""The row of the outbox beside a record is the one that the record leads to."""

from collections.abc import Mapping
from typing import Any

from engine.audit.canonical import encode_own
from engine.fsck.finding import Findings
from engine.fsck.streams import Entry
from engine.ledger.stream import Stream

Event = tuple[str, Mapping[str, Any]]
"""The name of an event and its payload."""


def compare_event(findings: Findings, stream: Stream, entry: Entry, expected: Event | None) -> None:
    """Compare it; None: there is none."""
    if expected is None:
        if entry.event is not None:
            says = f"record {entry.id} ({entry.record.kind}) has no event"
            findings.unexpected("outbox", entry.id, says)
        return
    name, payload = expected
    row = {
        "id": entry.id,
        **stream.columns(),
        "stream": stream.id,
        "seq": entry.record.seq,
        "event": name,
        "payload_json": encode_own(payload).decode(),
        "created_ms": entry.record.time_ms,
    }
    findings.compare("outbox", entry.id, row, entry.event, by=f"record {entry.id}")
