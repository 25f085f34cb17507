"""Whether the records of a file are one session's, complete, chained, in order and openly shown."""

from array import array

from engine.audit import canonical
from engine.audit.disclosure import GROUPS
from engine.audit.entries import Entry
from engine.audit.evidence import Evidence
from engine.audit.proofs import Inclusions, ProofError
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.audit.report import Finding, tampered
from engine.audit.signed import PAYMENT_KINDS, SignedReader
from engine.grant import NO_PARENT

_NOTHING = frozenset[str]()


class Walk:
    """One pass over the records of a file: each is read, held against the one before, looked for in
    the log, and replayed. Then it is let go, so a file takes little more memory than its bytes.

    `broken` is the first that does not follow, and up to it `not_replayed` the first that cannot
    have been decided so; `not_included` is the first that the log with this `tree` does not hold.
    `indexes` are those of all records in the log, the first `proven` of them under the anchor;
    `times_ms` are the times up to the first broken one;
    `signed` has what all that can be read tell of signed payments, since each may explain one on
    the chain.
    """

    def __init__(self, evidence: Evidence, replay: Replay, tree: Inclusions | None) -> None:
        """Walk. `tree` is None where nobody knows the log's.

        Raises:
            EvidenceError: an entry is not one that a file can have.
        """
        self.proven = 0
        self.indexes = array("q")
        self.times_ms = array("q")
        self.signed = SignedReader()
        self.broken: Finding | None = None
        self.not_replayed: ReplayError | None = None
        self.not_included: Finding | None = None
        self._evidence = evidence
        self._of_session = evidence.log_origin, evidence.workspace, evidence.session_id
        self._withheld = {
            kind: evidence.withheld & groups.keys() for kind, groups in GROUPS.items()
        }
        self._replay = replay
        self._tree = tree
        self._last: Record | None = None
        self._last_index = -1
        for place, entry in enumerate(evidence.entries()):
            self._pass(entry, place)
        if self._last is None:
            self._break(tampered("there is no record of the session's creation"))

    def _pass(self, entry: Entry, place: int) -> None:
        self.indexes.append(entry.index)
        self.proven += entry.proof is not None
        try:
            record = decode_record(entry.raw, entry.openings)
            if record.kind in PAYMENT_KINDS:
                self.signed.feed(record)
            if self.broken is None:
                self._follow(entry, record, place)
            if entry.proof is None or self._tree is None or self.not_included is not None:
                return
            self._tree.verify(record.hash, entry.index, entry.proof)
        except (canonical.CanonicalError, ProofError) as error:
            if isinstance(error, canonical.CanonicalError):
                self._break(tampered(f"record {place}: {error}"))
            if entry.proof is not None and self.not_included is None:
                self.not_included = tampered(f"record at log index {entry.index}: {error}")

    def _break(self, finding: Finding) -> None:
        self.broken = self.broken or finding

    def _follow(self, entry: Entry, record: Record, place: int) -> None:
        reason = self._misfit(entry, record, place)
        if reason is not None:
            self._break(tampered(reason))
            return
        self._last, self._last_index = record, entry.index
        self.times_ms.append(record.time_ms)
        if self.not_replayed is None:
            try:
                self._replay.follow(record)
            except ReplayError as error:
                self.not_replayed = error

    def _misfit(self, entry: Entry, record: Record, seq: int) -> str | None:
        last = self._last
        prev, time_ms = (None, 0) if last is None else (last.hash, last.time_ms)
        log, workspace, stream = self._of_session
        if record.stream != stream or record.log != log or record.workspace != workspace:
            return f"record {seq} is of another log or session"
        if record.seq != seq or record.prev != prev or entry.index <= self._last_index:
            return f"record {seq} does not follow the record before it"
        if record.time_ms < time_ms:
            return f"record {seq} is earlier than the record before it"
        withheld = self._withheld.get(record.kind, _NOTHING)
        if record.withheld != withheld or (entry.openings is None) == bool(withheld):
            return f"record {seq} does not withhold what the file says is withheld"
        return None if last is not None else _misfit_of_creation(self._evidence, record)


def _misfit_of_creation(evidence: Evidence, first: Record) -> str | None:
    grant, body = evidence.grant, first.body
    of_parent = grant.parent != NO_PARENT
    own = {
        "grant": grant.to_json(),
        "grant_hash": evidence.grant_hash.hex(),
        "type": evidence.session_type,
        "label": evidence.label,
        # Whoever is asked to sign has not done so yet.
        "consent": "delegated" if of_parent and body.get("state") != "awaiting_consent" else "none",
    }
    created = {name: body.get(name) for name in own}
    if canonical.encode(created) != canonical.encode(own):
        return "the session was created with another grant, type, label or consent"
    if (body.get("parent_id") is not None) != of_parent:
        return "the session was created with a parent where its grant has none, or without"
    if evidence.grant.workspace != evidence.workspace:
        return "the grant is for another workspace"
    return None
