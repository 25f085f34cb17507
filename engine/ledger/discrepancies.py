"""Discrepancies: what this database, its records and the chain do not say alike.

    note(batch, "parameters_differ", view.id, "critical", evidence, view.stream)
    resolve(batch, "parameters_differ", view.id)

Each kind is noted once for each subject, however often it is seen; once it was resolved, seeing it
again is another one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError, decode_object, encode
from engine.db.database import Read
from engine.db.tables import DiscrepancyRow, table
from engine.ledger.batch import Batch
from engine.ledger.stream import Stream

Severity = Literal["critical", "warning", "info"]

PARAMETERS_DIFFER = "parameters_differ"
"""The parameters of a session are not the same in its row, its records and the registry."""
SESSION_DAMAGED = "session_damaged"
"""Rows and records of a session contradict each other, so that nothing is decided for it."""
ENDPOINTS_DISAGREE = "endpoints_disagree"
"""Of several endpoints of the chain, two do not say the same of it."""
SETTLEMENT_CONTRADICTED = "settlement_contradicted"
"""The chain shows of a signed payment what cannot be, by what was signed."""

UNREADABLE: Mapping[str, Any] = {"unreadable": True}
"""In the place of evidence that is none."""

_discrepancies = table(DiscrepancyRow)


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One of them. Times are milliseconds; `resolved_ms` is None while it is open.

    `subject` is what it is about: a session's id, or a name of a thing that is no session of ours,
    such as `anchor 4096` or `token 0x…`. The next four are None where it is about no session, or
    about no workspace.
    """

    id: str
    kind: str
    subject: str
    workspace_id: str | None
    session_id: str | None
    session_type: str | None
    label: str | None
    severity: str
    evidence: Mapping[str, Any]
    first_seen_ms: int
    last_seen_ms: int
    resolved_ms: int | None


def note(
    batch: Batch,
    kind: str,
    subject: str,
    severity: Severity,
    evidence: Mapping[str, Any],
    stream: Stream | None = None,
) -> bool:
    """Write down what was found; returns whether it was not open already.

    `stream` is that of the session, or of the workspace, that it is about. Where several processes
    share the database, the caller holds that stream, or is the one that leads. `evidence` is JSON
    of the log: what each side says, and where. Of what is open, the newest evidence is kept.

    Raises:
        CanonicalError: the evidence is no such JSON.
    """
    told = {"severity": severity, "evidence_json": encode(evidence).decode()}
    open_one = batch.read(sa.select(_discrepancies.c.id).where(_open(kind, subject))).scalar()
    if open_one is not None:
        batch.update(
            sa.update(_discrepancies)
            .where(_discrepancies.c.id == open_one)
            .values(**told, last_seen_ms=batch.now_ms)
        )
        return False
    whose: dict[str, Any] = {"workspace_id": None, "session_type": None, "label": None}
    is_session = False
    if stream is not None:
        whose, is_session = stream.columns(), stream.id != stream.workspace_id
    batch.insert(
        _discrepancies,
        {
            "id": batch.identifiers.new("dsc"),
            **whose,
            "session_id": stream.id if stream is not None and is_session else None,
            "kind": kind,
            "subject": subject,
            **told,
            "first_seen_ms": batch.now_ms,
            "last_seen_ms": batch.now_ms,
            "resolved_ms": None,
        },
    )
    return True


def resolve(batch: Batch, kind: str, subject: str) -> bool:
    """It is no longer so; returns whether it was open."""
    found = batch.read(sa.select(_discrepancies.c.id).where(_open(kind, subject))).scalar()
    if found is None:
        return False
    batch.update(
        sa.update(_discrepancies)
        .where(_discrepancies.c.id == found)
        .values(resolved_ms=batch.now_ms)
    )
    return True


def is_open(read: Read, kind: str, subject: str) -> bool:
    """Whether it was noted and not resolved since."""
    return read(sa.select(_discrepancies.c.id).where(_open(kind, subject))).first() is not None


def open_subjects(read: Read, kinds: Collection[str]) -> set[str]:
    """What those of these kinds that are open are about."""
    columns = _discrepancies.c
    query = sa.select(columns.subject).where(columns.kind.in_(kinds), columns.resolved_ms.is_(None))
    return set(read(query).scalars())


def open_discrepancies(read: Read, workspace_id: str | None = None) -> list[Discrepancy]:
    """Those that are open, of one workspace or all, the oldest first."""
    query = sa.select(_discrepancies).where(_discrepancies.c.resolved_ms.is_(None))
    if workspace_id is not None:
        query = query.where(_discrepancies.c.workspace_id == workspace_id)
    rows = read(query.order_by(_discrepancies.c.first_seen_ms, _discrepancies.c.id))
    found = []
    for row in rows.mappings():
        fields = dict(row)
        found.append(Discrepancy(evidence=_evidence(fields.pop("evidence_json")), **fields))
    return found


def _evidence(stored: Any) -> Mapping[str, Any]:
    """One that is damaged keeps nobody from the others, and is seen again if it is still so."""
    try:
        return decode_object(stored.encode())
    except (CanonicalError, AttributeError):
        return UNREADABLE


def _open(kind: str, subject: str) -> sa.ColumnElement[bool]:
    columns = _discrepancies.c
    return sa.and_(columns.kind == kind, columns.subject == subject, columns.resolved_ms.is_(None))
