"""Discrepancies: that each is of a known kind, about a session or workspace that there is, and
there once at a time. What was seen, and when, no record tells.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import decode_object, encode
from engine.db.tables import DiscrepancyRow, Session, Workspace, table
from engine.fsck.finding import Findings, Row, part, stored
from engine.fsck.streams import DAMAGE
from engine.reconcile.kinds import KINDS

ID_LENGTH = 26
"""Of what follows the prefix of an id."""

_discrepancies = table(DiscrepancyRow)
_sessions = table(Session)
_workspaces = table(Workspace)


def check_discrepancies(connection: sa.Connection, findings: Findings) -> None:
    """Look at all of them."""
    columns = _discrepancies.c
    query = (
        sa.select(*stored(_discrepancies), *stored(_sessions, "of_"))
        .outerjoin(_sessions, _sessions.c.id == _session_of(columns.subject))
        .order_by(columns.kind, columns.subject, columns.first_seen_ms, columns.id)
        .execution_options(yield_per=500)
    )
    workspaces = set(connection.execute(sa.select(_workspaces.c.id)).scalars())
    before: dict[str, Any] | None = None
    for joined in connection.execute(query).mappings():
        row = {column.name: joined[column.name] for column in columns}
        session = part(joined, "of_", _sessions)
        whose = _whose(session)
        findings.compare("discrepancies", row["id"], whose, row, by="what it is about")
        if session is None and row["workspace_id"] not in (None, *workspaces):
            says = "there is no such workspace"
            found = row["workspace_id"]
            findings.add("discrepancies", row["id"], "workspace_id", found=found, says=says)
        _check_kind(findings, row)
        _check_times(findings, row, before)
        before = row


def _session_of(subject: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The session that a discrepancy is about, if it is about one, or about a payment of one."""
    start, length = len("pay_") + 1, ID_LENGTH
    session = sa.literal("sess_") + sa.func.substr(subject, start, length)
    return sa.case((subject.startswith("pay_", autoescape=True), session), else_=subject)


def _whose(session: Mapping[str, Any] | None) -> dict[str, Any]:
    if session is None:
        return {"session_id": None, "session_type": None, "label": None}
    return {
        "workspace_id": session["workspace_id"],
        "session_id": session["id"],
        "session_type": session["type"],
        "label": session["label"],
    }


def _check_kind(findings: Findings, row: Row) -> None:
    kind = KINDS.get(row["kind"]) if isinstance(row["kind"], str) else None
    if kind is None:
        says = "there is no such kind of discrepancy"
        findings.add("discrepancies", row["id"], "kind", found=row["kind"], says=says)
    else:
        wanted = {"severity": kind.severity}
        findings.compare("discrepancies", row["id"], wanted, row, by="its kind")
    try:
        told = row["evidence_json"].encode()
        regular = encode(decode_object(told)) == told
    except DAMAGE:
        regular = False
    if not regular:
        found, says = row["evidence_json"], "it is not JSON as the log has it"
        findings.add("discrepancies", row["id"], "evidence_json", found=found, says=says)


def _check_times(findings: Findings, row: Row, before: Row | None) -> None:
    """It was seen before it was resolved, and one like it was resolved before it was seen."""
    first, last, resolved = (row[f"{name}_ms"] for name in ("first_seen", "last_seen", "resolved"))
    times = [first, last, *(() if resolved is None else (resolved,))]
    if not all(type(time) is int for time in times):
        findings.add("discrepancies", row["id"], "first_seen_ms", says="its times are none")
        return
    if times != sorted(times):
        says = "it was not resolved after it was seen, or not seen last after it was seen first"
        findings.add("discrepancies", row["id"], "last_seen_ms", found=last, says=says)
    if before is None or any(row[name] != before[name] for name in ("kind", "subject")):
        return
    over = before["resolved_ms"]
    if over is None or (type(over) is int and over > first):
        says = f"{before['id']} is the same one and was not resolved by then"
        findings.unexpected("discrepancies", row["id"], says)
