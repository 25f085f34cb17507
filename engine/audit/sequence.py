"""Whether the records of a file are one session's, complete, chained, in order and openly shown."""

from collections.abc import Sequence

from engine.audit import canonical
from engine.audit.disclosure import GROUPS
from engine.audit.evidence import Entry, Evidence
from engine.audit.record import Record, decode_record
from engine.audit.report import tampered

Read = Record | canonical.CanonicalError
"""A record of the file, or why it is none."""


def read_records(entries: Sequence[Entry]) -> list[Read]:
    """Read the records, whole or in committed form; one that is none is refused by who needs it."""
    found: list[Read] = []
    for entry in entries:
        try:
            found.append(decode_record(entry.raw, entry.openings))
        except canonical.CanonicalError as error:
            found.append(error)
    return found


def check_sequence(evidence: Evidence, read: Sequence[Read]) -> list[Record]:
    """The records of a session, from its creation on without a gap.

    Raises `Finding` for the first that does not follow.
    """
    of_session = (evidence.log_origin, evidence.workspace, evidence.session_id)
    records: list[Record] = []
    last_index, prev, time_ms = -1, None, 0
    entries = (*evidence.records, *evidence.tail)
    for seq, (entry, record) in enumerate(zip(entries, read, strict=True)):
        if isinstance(record, canonical.CanonicalError):
            raise tampered(f"record {seq}: {record}") from record
        if (record.log, record.workspace, record.stream) != of_session:
            raise tampered(f"record {seq} is of another log or session")
        if (record.seq, record.prev) != (seq, prev) or entry.index <= last_index:
            raise tampered(f"record {seq} does not follow the record before it")
        if record.time_ms < time_ms:
            raise tampered(f"record {seq} is earlier than the record before it")
        withheld = evidence.withheld & GROUPS.get(record.kind, {}).keys()
        if record.withheld != withheld or (entry.openings is None) == bool(withheld):
            raise tampered(f"record {seq} does not withhold what the file says is withheld")
        last_index, prev, time_ms = entry.index, record.hash, record.time_ms
        records.append(record)
    if not records:
        raise tampered("there is no record of the session's creation")
    _check_created(evidence, records[0])
    return records


def _check_created(evidence: Evidence, first: Record) -> None:
    created = {name: first.body.get(name) for name in ("grant", "type", "label")}
    grant = evidence.grant.to_json()
    if canonical.encode(created) != canonical.encode(
        {"grant": grant, "type": evidence.session_type, "label": evidence.label}
    ):
        raise tampered("the session was created with another grant, type or label")
    if evidence.grant.workspace != evidence.workspace:
        raise tampered("the grant is for another workspace")
