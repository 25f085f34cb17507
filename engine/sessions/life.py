"""How a session changes once it exists: on the writer's thread, for operators and for the chain.

Each change of a row has its record beside it. What ends a session needs nothing of it but its row,
so that one whose parameters cannot be read is ended with the others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from engine.audit import restricting
from engine.audit.lowering import (
    LOWERED,
    UNLOWERED,
    Lowering,
    follow_lowering,
    inherited,
    lowered_to_json,
)
from engine.audit.replay import LOWERED_STATES
from engine.db.database import BUDGETS, of_its_rows
from engine.db.tables import Session, table
from engine.errors import Unavailable
from engine.ledger.account_rows import bare_row
from engine.ledger.batch import Batch
from engine.ledger.budgets import changed
from engine.ledger.discrepancies import (
    PARAMETERS_DIFFER,
    SESSION_DAMAGED,
    is_open,
    note,
    resolve,
)
from engine.ledger.stream import Stream, workspace_stream
from engine.sessions.chain_facts import before, chain_facts
from engine.sessions.delegation import ancestors, descendant_rows, descendants, has_children
from engine.sessions.session import SessionView, session_from_row

_sessions = table(Session)

Told = tuple[str, Mapping[str, Any]]
"""The kind of a record, and its body but for the state of the session."""


class Life:
    """See the module."""

    def read(self, batch: Batch, session_id: str, workspace_id: str | None = None) -> SessionView:
        """Read a session inside a batch.

        Raises:
            NotFound: absent, or of another workspace.
            Unavailable: its row does not hold a session.
        """
        query = sa.select(_sessions).where(_sessions.c.id == session_id)
        if workspace_id is not None:
            query = query.where(_sessions.c.workspace_id == workspace_id)
        try:
            row = batch.read(query).mappings().first()
        except sa.exc.StatementError as error:
            if not of_its_rows(error):
                raise
            raise Unavailable(
                f"session {session_id} is damaged in the database: {error.orig}",
                code="session_damaged",
            ) from error
        return session_from_row(row)

    def registered(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """The registration is confirmed on the chain and is of this grant."""
        self._matches_again(batch, view)
        self._move(batch, view, "active", "session.registered", evidence)

    def unregistered(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """The registration left the canonical chain: no payment until it is back."""
        self._matches_again(batch, view)
        self._move(batch, view, "registering", "session.unregistered", evidence)

    def mismatched(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """The chain holds other parameters under this session's key; nothing beneath it is paid
        either."""
        self._known_anew_beneath(batch, view)
        self._move(batch, view, "mismatch", "session.mismatched", evidence)
        says = {"stored_hash": view.grant_hash.hex(), "registration": dict(evidence)}
        note(batch, PARAMETERS_DIFFER, view.id, "critical", says, view.stream)

    def revoked(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> SessionView:
        """Revoke, by whomever `evidence` says, and with it every session beneath it."""
        if view.state != "revoked":
            self.end_all(batch, view, evidence)
        return self.read(batch, view.id)

    def expired(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """It is over by a clock that counts."""
        self._move(batch, view, "expired", "session.expired", evidence, ended=True)
        self._tell(batch, view, "agent.session.expired")

    def lowered(
        self, batch: Batch, view: SessionView, events: Sequence[Mapping[str, Any]]
    ) -> SessionView:
        """The limits were lowered on the chain; each event says to what, and where it stands.

        However many there are, the session is written once: its row tells of all of them, and an
        owner can lower limits as often as there is gas.
        """
        return self._limited_with_beneath(batch, view, [(LOWERED, event) for event in events])

    def unlowered(
        self, batch: Batch, view: SessionView, lowering: Lowering, confirmed_by: Mapping[str, Any]
    ) -> SessionView:
        """It is confirmed that they were not: the event left the canonical chain."""
        told = {**lowering.to_json(), **confirmed_by}
        return self._limited_with_beneath(batch, view, [(UNLOWERED, told)])

    def follow_above(self, batch: Batch, view: SessionView) -> SessionView:
        """What is lowered for the sessions above a session binds it, for as long as it is lowered,
        and so does what operators restrict them to.

        Raises:
            Unavailable: the rows above it do not hold sessions that it descends from.
        """
        if view.parent_id is None or view.state not in LOWERED_STATES:
            return view
        line = ancestors(batch.read, view)
        for above in line:
            restrictions = restricting.inherited(view.grant, above.restrictions)
            if restrictions != view.restrictions_above.get(above.id, ()):
                view = self._restricted_above(batch, view, above.id, restrictions)
        bound = dict.fromkeys(
            each for above in line for each in inherited(view.grant.limits, above.id, above.lowered)
        )
        told = dict.fromkeys(each for each in view.lowered if each.ancestor_id is not None)
        changes: list[Told] = [
            *((LOWERED, each.to_json()) for each in bound if each not in told),
            *((UNLOWERED, each.to_json()) for each in told if each not in bound),
        ]
        return self._limited(batch, view, changes) if changes else view

    def closed(self, batch: Batch, workspace_id: str, closing: Mapping[str, Any]) -> None:
        """The workspace was closed on the chain: every session of it ends that is not over, but for
        those that were registered after the closing."""
        query = sa.select(_sessions).where(
            _sessions.c.workspace_id == workspace_id, _sessions.c.state.in_(LOWERED_STATES)
        )
        live = [
            row
            for row in batch.read(query.order_by(_sessions.c.created_ms, _sessions.c.id)).all()
            if _registered_before(batch, row.token_id, closing)
        ]
        batch.hold((workspace_id, *(row.id for row in live)))
        batch.record(workspace_stream(workspace_id), "workspace.closed", dict(closing))
        for row in live:
            self._revoke(batch, row, {"by": "chain", "event": "WorkspaceClosed", **closing})

    def unreadable(self, batch: Batch, session_id: str, reason: str) -> None:
        """The row holds no session. It pays nothing, and a revocation ends it all the same."""
        row = bare_row(batch.read, session_id)
        if not is_open(batch.read, SESSION_DAMAGED, row.id):  # or it would be written every second
            note(batch, SESSION_DAMAGED, row.id, "critical", {"reason": reason}, _stream(row))
            batch.forget(row.workspace_id)  # memory would go on paying
        try:
            revocation = chain_facts(batch.read, row.token_id).revocation
        except Unavailable:  # it may be what cannot be read
            return
        if revocation is not None and row.state != "revoked":
            self.end_all(batch, row, {"by": "chain", **revocation})

    def _matches_again(self, batch: Batch, view: SessionView) -> None:
        """The chain does not hold other parameters any more, if it did."""
        if view.state == "mismatch":
            self._known_anew_beneath(batch, view)
            resolve(batch, PARAMETERS_DIFFER, view.id)

    def _known_anew_beneath(self, batch: Batch, view: SessionView) -> None:
        """What is in memory of the sessions beneath is read again when it is next needed."""
        if has_children(batch.read, view.id):
            batch.hold((view.id, BUDGETS))
            changed(batch, view.workspace_id)

    def end_all(self, batch: Batch, view: Any, evidence: Mapping[str, Any]) -> None:
        """Revoke it and all beneath it. `view` is a session, or what can be read of its row."""
        beneath = descendants(batch.read, view.id)
        batch.hold(each.id for each in (view, *beneath))
        self._revoke(batch, view, evidence)
        for child in beneath:
            if child.state != "revoked":
                self._revoke(batch, child, {"by": "ancestor", "ancestor_id": view.id})

    def _revoke(self, batch: Batch, view: Any, evidence: Mapping[str, Any]) -> None:
        self._move(batch, view, "revoked", "session.revoked", evidence, ended=True)
        self._tell(batch, view, "agent.session.revoked")

    def _limited_with_beneath(
        self, batch: Batch, view: SessionView, changes: Sequence[Told]
    ) -> SessionView:
        return self.with_beneath(batch, view, lambda: self._limited(batch, view, changes))

    def with_beneath(
        self, batch: Batch, view: SessionView, change: Callable[[], SessionView]
    ) -> SessionView:
        """Change what a session may do, and with it what those beneath it may."""
        beneath = descendant_rows(batch.read, view.id)
        batch.hold((view.id, *(row["id"] for row in beneath)))
        changed_view = change()
        for row in beneath:
            try:
                self.follow_above(batch, session_from_row(row))
            except Unavailable as error:  # it pays nothing until it is mended, and follows then
                self.unreadable(batch, row["id"], error.message)
        return changed_view

    def _limited(self, batch: Batch, view: SessionView, changes: Sequence[Told]) -> SessionView:
        lowered = view.lowered
        for kind, told in changes:
            lowered = follow_lowering(lowered, kind, told)
        return self.bound(batch, view, {"lowered_json": lowered_to_json(lowered)}, changes)

    def _restricted_above(
        self, batch: Batch, view: SessionView, ancestor_id: str, restrictions: Sequence[str]
    ) -> SessionView:
        told = {"by": "ancestor", "ancestor_id": ancestor_id, "restrictions": list(restrictions)}
        above = restricting.follow_above(view.restrictions_above, told)
        values = {"restrictions_above_json": restricting.above_to_json(above)}
        return self.bound(batch, view, values, [(restricting.RESTRICTED, told)])

    def bound(
        self,
        batch: Batch,
        view: SessionView,
        values: Mapping[str, Any],
        records: Sequence[Told],
    ) -> SessionView:
        """Another policy is in force: these values of its row, and the records of them."""
        delegates = has_children(batch.read, view.id)
        batch.hold((view.id, *((BUDGETS,) if delegates else ())))
        for kind, told in records:
            batch.record(view.stream, kind, {**told, "state": view.state})
        batch.update(sa.update(_sessions).where(_sessions.c.id == view.id).values(**values))
        if delegates:  # what they spend together is bound by it
            changed(batch, view.workspace_id)
        return self.read(batch, view.id)

    def _move(
        self,
        batch: Batch,
        view: Any,
        state: str,
        kind: str,
        evidence: Mapping[str, Any],
        *,
        ended: bool = False,
        paused_by: str | None = None,
    ) -> None:
        """`view` is a session, or its row."""
        values: dict[str, Any] = {"state": state, "paused_by": paused_by}
        if ended:
            values["ended_ms"] = batch.now_ms
        # First what can be refused, where the last record is damaged.
        batch.record(_stream(view), kind, {**evidence, "state": state})
        batch.update(sa.update(_sessions).where(_sessions.c.id == view.id).values(**values))

    def _tell(self, batch: Batch, view: Any, name: str) -> None:
        batch.event(
            _stream(view),
            name,
            {
                "session_id": view.id,
                "type": view.type,
                "label": view.label,
                "agent_id": view.agent_id,
                "expires_ms": view.expires_ms,
            },
        )


def _registered_before(batch: Batch, token_id: bytes, event: Mapping[str, Any]) -> bool:
    """Also where nobody can tell any more."""
    try:
        return before(chain_facts(batch.read, token_id).registration, event)
    except Unavailable:
        return True


def _stream(view: Any) -> Stream:
    return Stream(view.workspace_id, view.id, view.type, view.label)
