"""What is told of reconciliation."""

from typing import Any, Literal

from typing_extensions import TypedDict

from api.rest.answers import built_late
from api.rest.views import time_text
from engine.chain.depth import ChainPosition
from engine.ledger.discrepancies import Discrepancy
from engine.reconcile.kinds import KINDS
from engine.reconcile.reconciler import Reading, Reconciliation


class DiscrepancyAnswer(TypedDict):
    """Something that ledger, index and chain do not say alike; `evidence` is what each says."""

    id: str
    kind: str
    severity: Literal["critical", "warning", "info"]
    subject: str
    meaning: str
    workspace_id: str | None
    session_id: str | None
    session_type: str | None
    session_label: str | None
    evidence: dict[str, Any]
    first_seen_at: str
    last_seen_at: str


class ReconciliationAnswer(TypedDict):
    """One that was made: what was compared, and what came of it."""

    from_block: int
    to_block: int
    head_block: int
    filed: int
    resolved: int
    sessions_tightened: int
    left_out: int
    made_at: str


class ReadingAnswer(TypedDict):
    """How far one that is under way has come."""

    first_block: int
    last_block: int
    reached_block: int


class ChainAnswer(TypedDict):
    """The newest block of the chain, the newest that the index holds, and how many are between."""

    head_block: int | None
    indexed_block: int | None
    lag_blocks: int | None


class ReconciliationState(TypedDict):
    """What is open, the last reconciliation of this server, and one that is under way."""

    open: list[DiscrepancyAnswer]
    last: ReconciliationAnswer | None
    running: ReadingAnswer | None
    chain: ChainAnswer


def discrepancy_json(found: Discrepancy) -> DiscrepancyAnswer:
    """A discrepancy with what it means."""
    kind = KINDS[found.kind]
    return {
        "id": found.id,
        "kind": found.kind,
        "severity": kind.severity,
        "subject": found.subject,
        "meaning": kind.means,
        "workspace_id": found.workspace_id,
        "session_id": found.session_id,
        "session_type": found.session_type,
        "session_label": found.label,
        "evidence": dict(found.evidence),
        "first_seen_at": time_text(found.first_seen_ms),
        "last_seen_at": time_text(found.last_seen_ms),
    }


def reconciliation_json(made: Reconciliation) -> ReconciliationAnswer:
    """What came of one."""
    return {
        "from_block": made.from_block,
        "to_block": made.block.number,
        "head_block": made.head_number,
        "filed": made.filed,
        "resolved": made.resolved,
        "sessions_tightened": made.acted,
        "left_out": made.left_out,
        "made_at": time_text(made.made_ms),
    }


def reading_json(reading: Reading) -> ReadingAnswer:
    """How far it has come."""
    return {
        "first_block": reading.first,
        "last_block": reading.last,
        "reached_block": reading.reached,
    }


def chain_json(position: ChainPosition) -> ChainAnswer:
    """Where chain and index are."""
    return {
        "head_block": position.head_number,
        "indexed_block": position.indexed_number,
        "lag_blocks": position.lag,
    }


built_late(list(globals().values()))
