"""Payments as they are stored: one of them, or a page."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypedDict, Unpack

import sqlalchemy as sa

from engine.db.database import Database, all_rows
from engine.db.tables import Decision, Record, Session, table
from engine.ledger.payment import (
    Payment,
    State,
    of_session,
    parse_payment_id,
    payment_from_row,
    select_payments,
    stored_payment,
)

_decisions = table(Decision)
_records = table(Record)
_sessions = table(Session)


class Sought(TypedDict, total=False):
    """Which payments of a workspace: of one agent's sessions, of one session, in some states, asked
    for in `[from_ms, until_ms)`. What is left out, or None, is any."""

    agent_id: str | None
    session_id: str | None
    states: Collection[State] | None
    from_ms: int | None
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class Payments:
    """Reads what is committed."""

    database: Database

    def get(self, workspace_id: str, payment: str) -> Payment:
        """One payment of a workspace.

        Raises:
            NotFound: absent, or of another workspace.
        """
        session_id, number = parse_payment_id(payment)
        with self.database.reading() as connection:
            return stored_payment(connection.execute, session_id, number, workspace_id)

    def page(
        self, workspace_id: str, *, offset: int, limit: int, **sought: Unpack[Sought]
    ) -> tuple[list[Payment], int]:
        """Payments from `offset` on, the newest first, and how many there are in all."""
        where = _conditions(workspace_id, sought)
        query = (
            select_payments()
            .where(*where)
            .order_by(_decisions.c.id.desc())
            .offset(offset)
            .limit(limit)
        )
        count = select_payments().with_only_columns(sa.func.count()).where(*where)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
            return [payment_from_row(row) for row in rows], connection.execute(count).scalar_one()

    def all(self, workspace_id: str, **sought: Unpack[Sought]) -> Iterator[Payment]:
        """All of them that are committed by now, the oldest first, a few at a time."""
        query = select_payments().where(*_conditions(workspace_id, sought))
        # In a session both ascend alike, and there is an index on the second one.
        place = _decisions.c.id if sought.get("session_id") is None else _records.c.seq
        for row in all_rows(self.database, query, place):
            yield payment_from_row(row)


def _conditions(workspace_id: str, sought: Sought) -> list[sa.ColumnElement[bool]]:
    found = [_decisions.c.workspace_id == workspace_id]
    if (agent_id := sought.get("agent_id")) is not None:
        its = _sessions.c.workspace_id == workspace_id, _sessions.c.agent_id == agent_id
        found.append(_decisions.c.session_id.in_(sa.select(_sessions.c.id).where(*its)))
    if (session_id := sought.get("session_id")) is not None:
        found.append(of_session(session_id))
    if (states := sought.get("states")) is not None:
        found.append(_decisions.c.state.in_(states))
    if (from_ms := sought.get("from_ms")) is not None:
        found.append(_decisions.c.decided_ms >= from_ms)
    if (until_ms := sought.get("until_ms")) is not None:
        found.append(_decisions.c.decided_ms < until_ms)
    return found
