"""Whether the records of a file are one session's, complete, chained, in order and openly shown."""

from array import array
from itertools import chain

from engine.audit import canonical
from engine.audit.disclosure import GROUPS
from engine.audit.evidence import Entry, Evidence
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.audit.report import Finding, tampered


class Walk:
    """One pass over the records of a file: each is read, held against the one before, and replayed.

    Then it is let go: all of them decoded would be most of the memory. `hashes` has the leaf hash
    of each record, or why it is none; `broken` is the first that does not follow, and up to it
    `not_replayed` the first that cannot have been decided so.
    """

    def __init__(self, evidence: Evidence, replay: Replay) -> None:
        self.hashes: list[bytes | canonical.CanonicalError] = []
        self.times_ms = array("q")
        self.broken: Finding | None = None
        self.not_replayed: ReplayError | None = None
        self._evidence = evidence
        self._replay = replay
        self._last: Record | None = None
        self._last_index = -1
        for entry in chain(evidence.records, evidence.tail):
            try:
                record = decode_record(entry.raw, entry.openings)
            except canonical.CanonicalError as error:
                self._break(tampered(f"record {len(self.hashes)}: {error}"))
                self.hashes.append(error)
            else:
                if self.broken is None:
                    self._follow(entry, record)
                self.hashes.append(record.hash)
        if self._last is None:
            self._break(tampered("there is no record of the session's creation"))

    def _break(self, finding: Finding) -> None:
        self.broken = self.broken or finding

    def _follow(self, entry: Entry, record: Record) -> None:
        reason = self._misfit(entry, record)
        if reason is not None:
            self._break(tampered(reason))
            return
        self._last, self._last_index = record, entry.index
        self.times_ms.append(record.time_ms)
        if self.not_replayed is None:
            try:
                self._replay.feed((record,))
            except ReplayError as error:
                self.not_replayed = error

    def _misfit(self, entry: Entry, record: Record) -> str | None:
        evidence, last, seq = self._evidence, self._last, len(self.hashes)
        prev, time_ms = (None, 0) if last is None else (last.hash, last.time_ms)
        of_session = (evidence.log_origin, evidence.workspace, evidence.session_id)
        if (record.log, record.workspace, record.stream) != of_session:
            return f"record {seq} is of another log or session"
        if (record.seq, record.prev) != (seq, prev) or entry.index <= self._last_index:
            return f"record {seq} does not follow the record before it"
        if record.time_ms < time_ms:
            return f"record {seq} is earlier than the record before it"
        withheld = evidence.withheld & GROUPS.get(record.kind, {}).keys()
        if record.withheld != withheld or (entry.openings is None) == bool(withheld):
            return f"record {seq} does not withhold what the file says is withheld"
        return None if last is not None else _misfit_of_creation(evidence, record)


def _misfit_of_creation(evidence: Evidence, first: Record) -> str | None:
    created = {name: first.body.get(name) for name in ("grant", "type", "label")}
    grant = evidence.grant.to_json()
    if canonical.encode(created) != canonical.encode(
        {"grant": grant, "type": evidence.session_type, "label": evidence.label}
    ):
        return "the session was created with another grant, type or label"
    if evidence.grant.workspace != evidence.workspace:
        return "the grant is for another workspace"
    return None
