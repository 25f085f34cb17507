"""Payments as they are stored: one of them, or a page."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from engine.db.database import Database, all_rows
from engine.db.tables import Decision, Record, Session, table
from engine.ledger.payment import (
    Payment,
    of_session,
    parse_payment_id,
    payment_from_row,
    select_payments,
    stored_payment,
)

_decisions = table(Decision)
_records = table(Record)
_sessions = table(Session)


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
        self,
        workspace_id: str,
        *,
        agent_id: str | None = None,
        session_id: str | None,
        offset: int,
        limit: int,
    ) -> tuple[list[Payment], int]:
        """Payments from `offset` on, the newest first, and how many there are in all.

        Of one agent's sessions, or of one session, where that is named.
        """
        where = _conditions(workspace_id, agent_id, session_id)
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

    def all(
        self, workspace_id: str, *, agent_id: str | None = None, session_id: str | None
    ) -> Iterator[Payment]:
        """All of them that are committed by now, the oldest first, a few at a time."""
        query = select_payments().where(*_conditions(workspace_id, agent_id, session_id))
        # In a session both ascend alike, and there is an index on the second one.
        place = _decisions.c.id if session_id is None else _records.c.seq
        for row in all_rows(self.database, query, place):
            yield payment_from_row(row)


def _conditions(
    workspace_id: str, agent_id: str | None, session_id: str | None
) -> list[sa.ColumnElement[bool]]:
    found = [_decisions.c.workspace_id == workspace_id]
    if agent_id is not None:
        its = _sessions.c.workspace_id == workspace_id, _sessions.c.agent_id == agent_id
        found.append(_decisions.c.session_id.in_(sa.select(_sessions.c.id).where(*its)))
    if session_id is not None:
        found.append(of_session(session_id))
    return found
