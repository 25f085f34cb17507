"""What a session's records tell when they are replayed: why a payment was decided as it was, and
what a draft of the policy would have decided instead.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import sqlalchemy as sa

from engine.audit.backtest import Backtest, Draft, backtest
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay
from engine.db.database import Database
from engine.db.tables import Record as RecordRow
from engine.db.tables import table
from engine.errors import NotFound, Unavailable
from engine.grant import Grant
from engine.ledger.payment import Payment
from engine.policy.explain import Explanation

RECORDS_READ_MAX = 1_000
"""So many records are in memory at once."""

_records = table(RecordRow)
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision as it is recorded, beside what the records before it lead to.

    `differs` says what is wrong, None if both are the same byte for byte; `found` is None if the
    records do not even lead to the payment.
    """

    recorded: Mapping[str, Any]
    found: Explanation | None
    differs: str | None


@dataclass(frozen=True, slots=True)
class Explanations:
    """Replays what is committed. The time that takes grows with the session's records."""

    database: Database

    def explain(self, payment: Payment) -> Explained:
        """Every rule about a payment, on the account as the records before its own make it."""
        found = None
        try:
            with self._history(payment.session_id, payment.stream.workspace_id) as (grant, records):
                replay = Replay(grant, grant.hash())
                for record in records:
                    ours = record.kind == "payment.decided" and record.body["payment"] == payment.id
                    if ours:
                        found = replay.explain(record)
                    replay.feed((record,))
                    if ours:
                        return Explained(payment.decision, found, None)
        except _DAMAGE as error:
            return Explained(payment.decision, found, str(error))
        return Explained(payment.decision, None, "no record tells of the payment")

    def backtest(self, workspace_id: str, session_id: str, draft: Draft) -> Backtest:
        """Decide all payments of a session again under a draft of its policy.

        Raises:
            NotFound: no such session in this workspace.
            Unavailable: the session's records are damaged.
        """
        try:
            with self._history(session_id, workspace_id) as (grant, records):
                return backtest(records, grant, draft)
        except _DAMAGE as error:
            raise Unavailable(
                f"the records of session {session_id} do not replay: {error}",
                code="session_damaged",
            ) from error

    @contextmanager
    def _history(
        self, session_id: str, workspace_id: str
    ) -> Iterator[tuple[Grant, Iterator[Record]]]:
        """The grant that a session's first record tells, and all its records."""
        query = (
            sa.select(_records.c.body)
            .where(_records.c.stream == session_id, _records.c.workspace_id == workspace_id)
            .order_by(_records.c.seq)
            .execution_options(yield_per=RECORDS_READ_MAX)
        )
        with (
            self.database.reading() as connection,
            closing(connection.execute(query).scalars()) as bodies,
        ):
            records = map(decode_record, bodies)
            first = next(records, None)
            if first is None:
                raise NotFound("no such session", code="session_not_found")
            yield Grant.from_json(first.body["grant"]), chain((first,), records)
