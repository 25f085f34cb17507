"""What an auditor brings to a verification, and what it finds beside its verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.audit.chain import Anchoring, ChainView, Lowering, Registration, Revocation
from engine.audit.evidence import Evidence
from engine.audit.record import Record, decode_record
from engine.audit.report import Finding, Report, Verdict
from engine.audit.spends import Spends


@dataclass(frozen=True, slots=True)
class Auditor:
    """Where the auditor looks; nothing of it comes from the file. Addresses are lower-case.

    What does not fit says nothing about the file, so it is `unavailable`.
    """

    registry: str
    anchors: str | None
    chain_id: int | None

    def check_endpoint(self, chain: ChainView) -> int:
        """The chain id of the endpoint, which must be the auditor's. Raises `Finding`."""
        found = chain.chain_id
        if self.chain_id not in (None, found):
            raise Finding(
                Verdict.UNAVAILABLE,
                f"the endpoint (--rpc) serves chain {found}, not {self.chain_id} (--chain-id)",
            )
        return found

    def check_anchors(self, found: str) -> None:
        """The anchor registry that the session registry names must be the auditor's, too."""
        if self.anchors not in (None, found):
            raise Finding(
                Verdict.UNAVAILABLE,
                f"the session registry names the anchor registry {found}, not yours (--anchors)",
            )


@dataclass(slots=True)
class Found:
    """What the chain told, as far as it was asked."""

    block_number: int | None = None
    registration: Registration | None = None
    revocation: Revocation | None = None
    closing: Revocation | None = None
    lowerings: Sequence[Lowering] = ()
    anchorings: Sequence[Anchoring] = ()
    """The anchors of the log up to the file's own, by size."""
    spends: Spends = field(default_factory=Spends)


@dataclass(frozen=True, slots=True)
class Examination:
    """A verification: its report, and what it rests on as far as it came."""

    report: Report
    evidence: Evidence | None = None
    found: Found = field(default_factory=Found)


def records_of(evidence: Evidence) -> Iterator[Record]:
    """The session's records, decoded one by one.

    Raises:
        CanonicalError: one is none, as the `sequence` check says.
    """
    for entry in evidence.entries():
        yield decode_record(entry.raw, entry.openings)
