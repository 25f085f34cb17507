"""Reconciliation: reads both sides, files what differs, and acts at once on what tightens.

The ledger is looked at as of the last block that the index holds, and the chain as of the same
block, by its hash; the index moves sessions in the transaction in which it moves itself, so the two
can be compared at any moment. What is found is looked at again after the engine has gone on, and
held against what the endpoint says of it in another way, before it counts.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.canonical import CanonicalError
from engine.audit.lowering import read_lowering
from engine.audit.record import decode_record
from engine.chain.gateway import BlockHeader, ChainGateway, ChainUnavailable
from engine.clock import Clock
from engine.db.database import Database
from engine.db.tables import Record, Session, table
from engine.deployment import Deployment
from engine.errors import Unavailable
from engine.ledger.accounts import examine
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import (
    ENDPOINTS_DISAGREE,
    PARAMETERS_DIFFER,
    SESSION_DAMAGED,
    SETTLEMENT_CONTRADICTED,
    UNREADABLE,
    Discrepancy,
    Severity,
    note,
    open_discrepancies,
    resolve,
)
from engine.ledger.log import Log
from engine.ledger.stream import Stream, workspace_stream
from engine.ledger.writer import Writer
from engine.payments.settlement_watch import SettlementWatch
from engine.reconcile.chain_reader import ChainReader, Doubts
from engine.reconcile.compare import ENDED_STATES, Finding, compare
from engine.reconcile.kinds import KINDS
from engine.reconcile.ledger_reader import LedgerReader
from engine.reconcile.settlements import FOUND_HERE, SettlementReconciler
from engine.reconcile.sides import ChainSide, LedgerSide
from engine.sessions.lifecycle import Sessions

LOOKS_MAX = 5
"""So often a chain that changes while it is read is read again."""
FILED_MAX = 1_000
"""No more discrepancies of one kind are filed by one reconciliation: the first tell enough, and
whoever causes any number of one kind hides none of another."""
SEVERITIES: Sequence[Severity] = ("critical", "warning", "info")

_JUDGED_BY_THE_LEDGER = frozenset((PARAMETERS_DIFFER, SESSION_DAMAGED))
"""Of these it sees more than what is compared here: what the session's records say."""
_JUDGED_ELSEWHERE = frozenset((ENDPOINTS_DISAGREE, SETTLEMENT_CONTRADICTED, *FOUND_HERE))
"""These are resolved by whoever noted them."""
_TIGHTENING = frozenset(("revoked_on_chain_only", "expired_on_chain_only", "lowered_on_chain_only"))
_records = table(Record)
_sessions = table(Session)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a reconciliation has come: blocks `first` to `last`, read up to `reached`."""

    first: int
    last: int
    reached: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One that was made: what was compared, and what came of it.

    `block` is the last that was compared; `found` counts the discrepancies by severity, `filed`
    those that were not open before, `resolved` those that no longer are, `acted` the sessions that
    were ended or limited because of it. `left_out` were found and not filed.
    """

    from_block: int
    block: BlockHeader
    head_number: int
    found: dict[Severity, int]
    filed: int
    resolved: int
    acted: int
    left_out: int
    made_ms: int


class Reconciler:
    """Compares ledger and chain. One reconciliation at a time; from any thread."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        log: Log,
        sessions: Sessions,
        deployment: Deployment,
        clock: Clock,
        *,
        confirmations: int,
        go_on: Callable[[], None],
        watches: Mapping[str, SettlementWatch],
    ) -> None:
        """`go_on` lets the engine read the chain and act on what it reads. `watches` are of the
        chains that payments are on."""
        self._database = database
        self._writer = writer
        self._sessions = sessions
        self._clock = clock
        self._confirmations = confirmations
        self._go_on = go_on
        self._settlements = SettlementReconciler(watches, database, writer, clock)
        self._start_block = deployment.start_block
        self._chain = ChainReader(
            gateway,
            registry=deployment.registry,
            anchors=deployment.anchors,
            log_id=deployment.log_id,
            start_block=deployment.start_block,
        )
        self._ledger = LedgerReader(database, log, deployment.log_id)
        self._running = threading.Lock()
        self.reading: Reading | None = None
        """How far the one that is under way has come."""
        self.last: Reconciliation | None = None
        """The last that was made by this process."""

    def run(self, *, from_block: int | None = None) -> Reconciliation:
        """Reconcile; with `from_block`, only what the chain holds from that block on.

        What was open and is not found any more is resolved, unless only a part was looked at.

        Raises:
            ChainUnavailable: the chain does not answer or contradicts itself: nothing is filed.
        """
        with self._running:
            try:
                self._go_on()
                if from_block is None:
                    self._settlements.run()
                findings, ledger, chain = self._look_again(from_block)
                if findings:
                    self._go_on()
                    seen = {finding.key for finding in findings}
                    findings, ledger, chain = self._look_again(from_block)
                    findings = [finding for finding in findings if finding.key in seen]
                    self._check(findings, ledger, chain)
                ids = [finding.session.id for finding in findings if finding.session is not None]
                self.last = self._writer.call(
                    lambda batch: self._file(batch, findings, chain), *ids
                )
            finally:
                self.reading = None
        return self.last

    def open(self) -> list[Discrepancy]:
        """The discrepancies that are open, the oldest first."""
        with self._database.reading() as connection:
            return open_discrepancies(connection.execute)

    def _look_again(self, from_block: int | None) -> tuple[list[Finding], LedgerSide, ChainSide]:
        for _ in range(LOOKS_MAX - 1):
            try:
                return self._look(from_block)
            except ChainUnavailable:
                self._go_on()
        return self._look(from_block)

    def _look(self, from_block: int | None) -> tuple[list[Finding], LedgerSide, ChainSide]:
        ledger, tip = self._ledger.read(self._clock(), from_block=from_block or 0)
        if tip is None:
            raise ChainUnavailable("nothing of the chain has been read yet")
        chain = self._chain.read(tip, from_block=from_block, progress=self._reached)
        return compare(ledger, chain, confirmations=self._confirmations), ledger, chain

    def _reached(self, first: int, last: int, reached: int) -> None:
        self.reading = Reading(first, last, reached)

    def _check(self, findings: Sequence[Finding], ledger: LedgerSide, chain: ChainSide) -> None:
        """Ask the chain in another way about what was found."""
        subjects = {kind: set[str]() for kind in KINDS}
        for finding in findings:
            subjects[finding.kind].add(finding.subject)
        missing = _bytes(
            session.token_id
            for session in ledger.sessions
            if session.id in subjects["session_missing_on_chain"]
        )
        unknown = {bytes.fromhex(s.partition("0x")[2]) for s in subjects["session_unknown_here"]}
        theirs = {p: e for p, e in chain.events.items() if ledger.events.get(p) != e}
        ours = {
            place: event
            for place, event in ledger.events.items()
            if place not in chain.events and _bytes([event.tx_hash])
        }
        lost = [a for a in ledger.anchors if f"anchor {a.size}" in subjects["anchor_missing"]]
        doubts = Doubts(
            registered=unknown,
            unregistered=missing,
            told=dict(islice(theirs.items(), FILED_MAX)),
            untold=dict(islice(ours.items(), FILED_MAX)),
            unmined=_bytes(tx_hash for anchor in lost for tx_hash in anchor.tx_hashes),
        )
        self._chain.check(chain, doubts)

    # What follows runs on the writer's thread.

    def _file(self, batch: Batch, findings: Sequence[Finding], chain: ChainSide) -> Reconciliation:
        batch.sequencing()  # of the processes that share a database, only one files at a time
        gone = self._not_found_again(batch, findings) if chain.whole else []
        batch.hold(known.subject for known in gone if known.kind in _JUDGED_BY_THE_LEDGER)
        worst_first = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
        acted = sum(self._act(batch, finding) for finding in worst_first)
        told = _not_too_many(worst_first)
        filed = sum(_note(batch, finding) for finding in told)
        return Reconciliation(
            from_block=chain.from_block or self._start_block,
            block=chain.block,
            head_number=chain.head_number,
            found={s: sum(f.severity == s for f in findings) for s in SEVERITIES},
            filed=filed,
            resolved=self._resolve(batch, gone),
            acted=acted,
            left_out=len(findings) - len(told),
            made_ms=batch.now_ms,
        )

    def _act(self, batch: Batch, finding: Finding) -> bool:
        """Do here what the chain says and nobody did; says whether that was done now."""
        if finding.session is None or finding.kind not in _TIGHTENING:
            return False
        try:
            view = self._sessions.read(batch, finding.session.id)
        except Unavailable:  # its rows are damaged, and nothing is decided for it
            return False
        if view.state in ENDED_STATES:
            return False
        if (recorded := _recorded_end(batch, view.id)) is not None:
            # Its row alone was changed; a second end in its records would make them false.
            batch.update(sa.update(_sessions).where(_sessions.c.id == view.id).values(**recorded))
            batch.forget(view.workspace_id)
            return True
        evidence = {"by": "chain", "found_by": "reconciliation", "found": finding.evidence}
        if finding.kind == "revoked_on_chain_only":
            self._sessions.revoked(batch, view, evidence)
        elif finding.kind == "expired_on_chain_only":
            self._sessions.expired(batch, view, evidence)
        elif read_lowering(finding.evidence["chain"]) in view.lowered:
            return False
        else:
            self._sessions.lowered(batch, view, [finding.evidence["chain"]])
        _log.error("tightened_by_reconciliation", session=view.id, kind=finding.kind)
        return True

    def _not_found_again(self, batch: Batch, findings: Sequence[Finding]) -> list[Discrepancy]:
        found = {finding.key for finding in findings}
        return [
            known
            for known in open_discrepancies(batch.read)
            if (known.kind, known.subject) not in found and known.kind not in _JUDGED_ELSEWHERE
        ]

    def _resolve(self, batch: Batch, gone: Sequence[Discrepancy]) -> int:
        """Close what is no longer so; returns how many were."""
        judged = [known.subject for known in gone if known.kind in _JUDGED_BY_THE_LEDGER]
        for known in gone:
            if known.kind not in _JUDGED_BY_THE_LEDGER:
                resolve(batch, known.kind, known.subject)
        examine(batch, judged)
        still_open = {known.id for known in open_discrepancies(batch.read)}
        return sum(known.id not in still_open for known in gone)


def _bytes(values: Iterable[object]) -> set[bytes]:
    """The chain cannot be asked about what a damaged row says instead."""
    return {value for value in values if isinstance(value, bytes)}


def _not_too_many(findings: Sequence[Finding]) -> list[Finding]:
    """The first `FILED_MAX` of each kind, in the same order."""
    counts = Counter[str]()
    told = []
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= FILED_MAX:
            told.append(finding)
    return told


def _note(batch: Batch, finding: Finding) -> bool:
    about = (batch, finding.kind, finding.subject, finding.severity)
    try:
        new = note(*about, finding.evidence, _stream(finding))
    except CanonicalError:  # a row holds what no evidence can
        new = note(*about, UNREADABLE, _stream(finding))
    if new:
        _log.error("discrepancy", kind=finding.kind, subject=finding.subject)
    return new


def _recorded_end(batch: Batch, session_id: str) -> dict[str, Any] | None:
    """How a session ended by its records, as columns of its row; None if it did not."""
    bodies = batch.read(sa.select(_records.c.body).where(_records.c.stream == session_id))
    for body in bodies.scalars():
        record = decode_record(body)
        if record.kind in ("session.revoked", "session.expired"):
            state = record.kind.removeprefix("session.")
            return {"state": state, "ended_ms": record.time_ms}
    return None


def _stream(finding: Finding) -> Stream | None:
    session = finding.session
    if session is not None:
        return Stream(session.workspace_id, session.id, session.type, session.label)
    if finding.workspace_id is not None:
        return workspace_stream(finding.workspace_id)
    return None
