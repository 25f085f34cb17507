"""What the database holds of sessions: all that their accounts are made of.

It is read for many sessions with the same few statements, since a statement costs more than what it
finds of one session.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from engine.audit.delegation import DEPTH_MAX
from engine.db.database import Read, of_its_rows
from engine.db.tables import Approval, Decision, Record, Session, table
from engine.ledger.parameters import REGISTERED_STATES, OnChain, read_on_chain

_AT_ONCE = 500
"""So many sessions a statement: databases bound how many values one may have."""
_DECISION = ("number", "state", "captured", "idempotency_key")

_approvals = table(Approval)
_decisions = table(Decision)
_records = table(Record)
_sessions = table(Session)
_children = _sessions.alias()
_wanted: sa.BindParameter[Any] = sa.bindparam("wanted", expanding=True)

_session_rows = sa.select(
    _sessions, sa.exists().where(_children.c.parent_id == _sessions.c.id).label("delegates")
).where(_sessions.c.id.in_(_wanted))
_parent_rows = sa.select(_sessions).where(_sessions.c.id.in_(_wanted))
_waiting_rows = sa.select(
    *(_approvals.c[name] for name in ("session_id", "digest", "number", "expires_ms"))
).where(_approvals.c.session_id.in_(_wanted), _approvals.c.state == "waiting")
_entries = (
    sa.select(
        *(_records.c[name] for name in ("stream", "seq", "body")),
        *(_decisions.c[name] for name in _DECISION),
    )
    .outerjoin(_decisions, _decisions.c.id == _records.c.id)
    .where(_records.c.stream.in_(_wanted))
    .order_by(_records.c.stream, _records.c.seq)
)


@dataclass(slots=True)
class SessionRows:
    """The rows of one session.

    `row` is its own, with `delegates`: whether there are sessions beneath it. `above` has rows of
    sessions by their ids, among them all that it descends from; `waiting` are its approvals that
    wait, and `on_chain` is what the index has of it. `entries` are its records in their order, each
    with the columns of the decision that stands beside it, None where there is none; they can be
    gone through once, before the next session is asked for.
    """

    row: Any
    above: Mapping[str, Mapping[Any, Any]]
    on_chain: OnChain
    waiting: set[tuple[str, int, int]] = field(default_factory=set)
    entries: Iterator[Any] = iter(())


def read_sessions(read: Read, session_ids: Collection[str]) -> Iterator[SessionRows]:
    """The rows of those of these sessions that there are, in any order."""
    ids = list(session_ids)
    for at in range(0, len(ids), _AT_ONCE):
        yield from _read(read, ids[at : at + _AT_ONCE])


def _read(read: Read, session_ids: list[str]) -> Iterator[SessionRows]:
    rows = read(_session_rows.params(wanted=session_ids)).all()
    if not rows:
        return
    above = _read_above(read, {row.parent_id for row in rows} - {None})
    registered = [row.token_id for row in rows if row.mint_pkp and row.state in REGISTERED_STATES]
    on_chain = read_on_chain(read, registered)
    found = {row.id: SessionRows(row, above, on_chain.get(row.token_id, OnChain())) for row in rows}
    for each in read(_waiting_rows.params(wanted=list(found))):
        found[each.session_id].waiting.add((each.digest, each.number, each.expires_ms))
    entries = read(_entries.params(wanted=list(found)))
    for session_id, its in groupby(entries, attrgetter("stream")):
        session = found.pop(session_id)
        session.entries = its
        yield session
    yield from found.values()  # they have no records


def _read_above(read: Read, session_ids: Collection[str]) -> dict[str, Mapping[Any, Any]]:
    """Those sessions, and all that they descend from."""
    above: dict[str, Mapping[Any, Any]] = {}
    for _ in range(DEPTH_MAX):
        wanted = {each for each in session_ids if each not in above}
        if not wanted:
            break
        rows = read(_parent_rows.params(wanted=list(wanted))).mappings().all()
        above.update((row["id"], row) for row in rows)
        session_ids = {row["parent_id"] for row in rows} - {None}
    return above


def bare_row(read: Read, session_id: str) -> sa.Row[Any]:
    """What of the row of a damaged session is needed to tell of it, and to revoke it; without its
    label if that is no text."""
    needed = ("id", "workspace_id", "type", "agent_id", "state", "token_id", "expires_ms")
    query = sa.select(*(_sessions.c[name] for name in needed)).where(_sessions.c.id == session_id)
    try:
        return read(query.add_columns(_sessions.c.label)).one()
    except sa.exc.StatementError as error:
        if not of_its_rows(error):
            raise
        return read(query.add_columns(sa.null().label("label"))).one()
