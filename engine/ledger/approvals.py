"""Approvals: operators grant or deny them; with the last grant that is needed, the payment is made.

Whoever waits longest is not the one who decides: a grant is judged at the moment it comes, by the
keys that are valid then, the policy in force and the budgets as they are.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from engine.db.database import Database, Read
from engine.db.keys import ApiKey
from engine.db.tables import Approval as ApprovalRow
from engine.db.tables import table
from engine.errors import Conflict, NotFound, Unauthenticated, Unavailable
from engine.ledger.account import Account, Waiting
from engine.ledger.approval import (
    Approval,
    State,
    approval_from_row,
    deny_approval,
    end_approvals,
    grant_approval,
    in_state,
    parse_approval_id,
    refuse_approval,
    select_approvals,
    use_approval,
    with_what_counts,
)
from engine.ledger.ask import ask_again
from engine.ledger.batch import Batch
from engine.ledger.ledger import Ledger
from engine.ledger.sweep import SWEPT_MAX
from engine.ledger.writer import Writer

_approvals = table(ApprovalRow)
_keys = table(ApiKey)


@dataclass(frozen=True, slots=True)
class Approvals:
    """What waits for operators, and what they decide."""

    database: Database
    writer: Writer
    ledger: Ledger

    def get(self, workspace_id: str, approval: str, now_ms: int) -> Approval:
        """One approval of a workspace, as it stands at `now_ms`.

        Raises:
            NotFound: absent, or of another workspace.
        """
        query = _one(workspace_id, approval)
        with self.database.reading() as connection:
            return _found(connection.execute, query, now_ms)

    def page(
        self,
        workspace_id: str,
        now_ms: int,
        *,
        session_id: str | None,
        state: State | None,
        offset: int,
        limit: int,
    ) -> tuple[list[Approval], int]:
        """Approvals from `offset` on, the newest first, and how many there are in all."""
        where = [_approvals.c.workspace_id == workspace_id]
        if session_id is not None:
            where.append(_approvals.c.session_id == session_id)
        if state is not None:
            where.append(in_state(state, now_ms))
        query = (
            select_approvals()
            .where(*where)
            .order_by(
                _approvals.c.requested_ms.desc(),
                _approvals.c.session_id.desc(),
                _approvals.c.number.desc(),
            )
            .offset(offset)
            .limit(limit)
        )
        count = sa.select(sa.func.count()).select_from(_approvals).where(*where)
        with self.database.reading() as connection:
            found = [approval_from_row(row, now_ms) for row in connection.execute(query)]
            marked = with_what_counts(connection.execute, found)
            return marked, connection.execute(count).scalar_one()

    def grant(self, workspace_id: str, approval: str, *, by: str) -> Approval:
        """Grant with the key `by`. With the last grant that is needed the payment is decided, and
        held or captured if everything but the threshold still allows it; else it is refused.

        A key counts once, and only while it is valid: granting again changes nothing.

        Raises:
            NotFound: absent, or of another workspace.
            Unauthenticated: the key is not, or no longer, an operator's of the workspace.
            Conflict: it is over; the code says how, such as `approval_denied`.
            Unavailable: no safe decision is possible now.
        """

        def command(batch: Batch, before: Approval) -> None:
            again = any(given.key_id == by for given in before.grants)
            if not (again and before.state in ("waiting", "granted", "refused")):
                self._grant(batch, before, by)

        return self._call(workspace_id, approval, by, command)

    def deny(
        self, workspace_id: str, approval: str, *, by: str, reason: str | None = None
    ) -> Approval:
        """End it without a payment; one operator is enough. Denying again changes nothing.

        Raises:
            NotFound: absent, or of another workspace.
            Unauthenticated: the key is not, or no longer, an operator's of the workspace.
            Conflict: it is over in another way.
        """

        def command(batch: Batch, before: Approval) -> None:
            if before.denied_by != by:
                account, waiting = self._waiting(batch, before)
                deny_approval(batch, account, waiting, by, reason)

        return self._call(workspace_id, approval, by, command)

    def _call(
        self,
        workspace_id: str,
        approval: str,
        key_id: str,
        act: Callable[[Batch, Approval], None],
    ) -> Approval:
        query = _one(workspace_id, approval)
        session_id, _ = parse_approval_id(approval)

        def command(batch: Batch) -> Approval:
            before = _found(batch.read, query, batch.now_ms)
            if _valid(batch, workspace_id, [key_id]) == 0:
                raise Unauthenticated("the API key is not valid")
            act(batch, before)
            return _found(batch.read, query, batch.now_ms)

        # Whoever revokes a key of the workspace holds its stream, too.
        streams = self.ledger.streams((session_id,)) | {workspace_id}
        return self.writer.call(command, *streams)

    def _waiting(self, batch: Batch, before: Approval) -> tuple[Account, Waiting]:
        if before.state != "waiting":
            why = "" if before.code is None else f": {before.code}"
            raise Conflict(f"the approval is {before.state}{why}", code=f"approval_{before.state}")
        account = self.ledger.account(batch, before.session_id)
        waiting = account.approvals.get(before.digest)
        if waiting is None or waiting.number != before.number:
            raise _damaged(before)
        return account, waiting

    def _grant(self, batch: Batch, before: Approval, key_id: str) -> None:
        account, waiting = self._waiting(batch, before)
        asked = ask_again(before.session_id, before.request)
        if asked.digest != before.digest:
            raise _damaged(before)
        self.ledger.check_chain(account)
        self.ledger.expire(batch, account)
        if before.digest not in account.approvals:
            return  # the policy has changed, and refused it
        self.ledger.check_kept(batch, account, before.request)
        grant_approval(batch, account, before, key_id)
        if _valid(batch, before.stream.workspace_id, waiting.keys) < account.approvals_required:
            return
        payment = self.ledger.answer(batch, account, asked, approval=before.id)
        if payment.decision["allowed"]:
            use_approval(batch, account, waiting, payment)
        else:
            refuse_approval(batch, account, waiting, payment)

    def over(self, batch: Batch, but: Collection[str]) -> Mapping[str, None]:
        """The sessions with approvals that are over; but not these."""
        due = batch.read(
            sa.select(_approvals.c.session_id)
            .where(_approvals.c.state == "waiting", _approvals.c.expires_ms <= batch.now_ms)
            .where(_approvals.c.session_id.not_in(but))
            .order_by(_approvals.c.expires_ms)
            .limit(SWEPT_MAX)
        ).scalars()
        sessions = dict.fromkeys(due.all())
        batch.hold(sessions)
        return sessions

    def end(self, batch: Batch, session_id: str, _found: None) -> int:
        """Record the end of a session's approvals that are over; returns of how many."""
        return end_approvals(batch, self.ledger.account(batch, session_id))


def _one(workspace_id: str, approval: str) -> sa.Select[Any]:
    session_id, number = parse_approval_id(approval)
    return select_approvals().where(
        _approvals.c.session_id == session_id,
        _approvals.c.number == number,
        _approvals.c.workspace_id == workspace_id,
    )


def _found(read: Read, query: sa.Select[Any], now_ms: int) -> Approval:
    row = read(query).first()
    if row is None:
        raise NotFound("no such approval", code="approval_not_found")
    [found] = with_what_counts(read, [approval_from_row(row, now_ms)])
    return found


def _valid(batch: Batch, workspace_id: str, key_ids: Collection[str]) -> int:
    """How many of these keys are an operator's of the workspace, and not revoked."""
    query = sa.select(sa.func.count()).where(
        _keys.c.workspace_id == workspace_id,
        _keys.c.id.in_(key_ids),
        _keys.c.revoked_ms.is_(None),
    )
    count: int = batch.read(query).scalar_one()
    return count


def _damaged(approval: Approval) -> Unavailable:
    return Unavailable(f"approval {approval.id} is damaged in the database", code="session_damaged")
