"""Administrative acts: all records of no payment or intent, by whom and when, to be looked for.

The record is the truth; the row beside it only says where to look.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.decided import Decided
from engine.audit.record import Body
from engine.db.acts import Act
from engine.db.database import Database, all_rows
from engine.db.tables import Record, table

SYSTEM = "system"
"""Whose act it is that nobody asked for: an expiry, a first start."""
_PAYMENTS = ("payment.", "intent.")
_SUBJECTS = ("key", "agent_id", "budget", "webhook")
"""What an act of a workspace is about, by the field of its record; else the workspace itself."""

_acts = table(Act)
_records = table(Record)
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class ActView:
    """An act: what was done (`kind`), when, by whom (`actor`), to what, and all its record tells.

    `stream` and `seq` say where the record is; `resource_id` is a session, a key, an agent, a
    budget, a webhook, an approval or the workspace.
    """

    id: int
    stream: str
    seq: int
    time_ms: int
    kind: str
    actor: str
    resource_id: str
    told: Mapping[str, Any]


def act_row(
    record_id: int, workspace_id: str, time_ms: int, kind: str, body: Body
) -> dict[str, Any] | None:
    """The row beside a record; None beside one of a payment or an intent."""
    if isinstance(body, Decided) or kind.startswith(_PAYMENTS):
        return None
    by = body.get("key" if kind.startswith("approval.") else "by")
    return {
        "id": record_id,
        "workspace_id": workspace_id,
        "time_ms": time_ms,
        "kind": kind,
        "actor": SYSTEM if by is None else by,
    }


@dataclass(frozen=True, slots=True)
class Acts:
    """Reads what is committed."""

    database: Database

    def page(
        self,
        workspace_id: str,
        *,
        actor: str | None,
        kinds: Collection[str],
        from_ms: int | None,
        until_ms: int | None,
        offset: int,
        limit: int,
    ) -> tuple[list[ActView], int]:
        """Acts from `offset` on, the newest first, and how many there are in all.

        Without `kinds` they are of any; times are in `[from_ms, until_ms)`, milliseconds.
        """
        where = _conditions(workspace_id, actor, kinds, from_ms, until_ms)
        query = _select().where(*where).order_by(_acts.c.id.desc()).offset(offset).limit(limit)
        count = sa.select(sa.func.count()).select_from(_acts).where(*where)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
            return [_view(row) for row in rows], connection.execute(count).scalar_one()

    def all(
        self,
        workspace_id: str,
        *,
        actor: str | None,
        kinds: Collection[str],
        from_ms: int | None,
        until_ms: int | None,
    ) -> Iterator[ActView]:
        """All of them that are committed by now, the oldest first, a few at a time."""
        where = _conditions(workspace_id, actor, kinds, from_ms, until_ms)
        for row in all_rows(self.database, _select().where(*where), _acts.c.id):
            yield _view(row)


def _select() -> sa.Select[Any]:
    return sa.select(_acts, _records.c.stream, _records.c.seq, _records.c.body).join(
        _records, _records.c.id == _acts.c.id
    )


def _conditions(
    workspace_id: str,
    actor: str | None,
    kinds: Collection[str],
    from_ms: int | None,
    until_ms: int | None,
) -> list[sa.ColumnElement[bool]]:
    found = [_acts.c.workspace_id == workspace_id]
    if actor is not None:
        found.append(_acts.c.actor == actor)
    if kinds:
        found.append(_acts.c.kind.in_(kinds))
    if from_ms is not None:
        found.append(_acts.c.time_ms >= from_ms)
    if until_ms is not None:
        found.append(_acts.c.time_ms < until_ms)
    return found


def _view(row: Any) -> ActView:
    told: Mapping[str, Any] = _decode(row.body)["body"]
    return ActView(
        id=row.id,
        stream=row.stream,
        seq=row.seq,
        time_ms=row.time_ms,
        kind=row.kind,
        actor=row.actor,
        resource_id=_resource(row.stream, row.workspace_id, row.kind, told),
        told=told,
    )


def _resource(stream: str, workspace_id: str, kind: str, told: Mapping[str, Any]) -> str:
    if kind.startswith("approval."):
        return str(told["approval"])
    if stream != workspace_id:
        return stream
    return str(next((told[name] for name in _SUBJECTS if name in told), workspace_id))
