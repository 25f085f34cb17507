"""Delegation: a session opens a narrower one beneath itself.

A child's grant holds the hash of its parent's, and so does the child's own hash: a circle of
sessions would be a circle of hashes, which nobody can make. Rows that tell of one are damaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from engine.audit.delegation import DEPTH_MAX
from engine.db.database import Read
from engine.db.tables import Session, table
from engine.errors import Conflict, InvalidInput, Unavailable
from engine.grant import ZERO_ADDRESS, Grant
from engine.ledger.lineage import line_above, stored_row
from engine.policy.narrower import narrower
from engine.sessions.session import DURATION_MS, NewSession, SessionView, session_from_row
from engine.workspaces.agents import is_registered

DESCENDANTS_MAX = 1_000
"""Beneath one session that nobody delegated: each can cost its operator transactions."""

_sessions = table(Session)

_CALLERS_WORDS = {
    "limits.per_transaction": "limits.max_per_transaction",
    "limits.per_day": "limits.max_per_day",
    "limits.per_week": "limits.max_per_week",
    "limits.per_month": "limits.max_per_month",
    "limits.approval_above": "limits.require_approval_above",
    "merchants": "allowed_merchants",
    "tokens": "allowed_tokens",
    "chains": "allowed_chains",
    "valid_from": "duration_hours",
    "valid_until": "duration_hours",
}
"""What the fields of a policy are called in a request."""


def ancestors(read: Read, view: SessionView) -> list[SessionView]:
    """The sessions that a session was delegated from, its parent first.

    Their policies (`SessionView.policy`) bind what all their descendants spend together.

    Raises:
        Unavailable: the rows are not of a line of grants that name each other.
    """
    line = partial(line_above, partial(stored_row, read))
    try:
        return [session_from_row(row) for row, _ in line(view.parent_id, view.grant)]
    except ValueError as error:
        raise Unavailable(
            f"session {view.id} is damaged in the database: {error}", code="session_damaged"
        ) from error


def descendants(read: Read, session_id: str) -> list[SessionView]:
    """The sessions beneath a session, the oldest first.

    Those that are damaged are left out: they pay nothing, and what is to happen to the others must
    not wait for them.
    """
    found = []
    for row in descendant_rows(read, session_id):
        try:
            found.append(session_from_row(row))
        except Unavailable:
            continue
    return found


def descendant_rows(read: Read, session_id: str) -> Sequence[Mapping[Any, Any]]:
    """The rows of the sessions beneath a session, the oldest first; damaged ones, too."""
    query = (
        sa.select(_sessions)
        .where(_sessions.c.id.in_(family(session_id)), _sessions.c.id != session_id)
        .order_by(_sessions.c.created_ms, _sessions.c.id)
    )
    return read(query).mappings().all()


def family(session_id: str) -> sa.Select[tuple[str]]:
    """The ids of a session and of all beneath it, as a query."""
    tree = sa.select(_sessions.c.id).where(_sessions.c.id == session_id).cte(recursive=True)
    tree = tree.union(sa.select(_sessions.c.id).where(_sessions.c.parent_id == tree.c.id))
    return sa.select(tree.c.id)


def has_children(read: Read, session_id: str) -> bool:
    """Whether there is a session right beneath it."""
    children = sa.select(_sessions.c.id).where(_sessions.c.parent_id == session_id)
    return read(children.limit(1)).first() is not None


def as_child(read: Read, new: NewSession, line: Sequence[SessionView], now_ms: int) -> NewSession:
    """What is asked for, beneath the first of `line`: with its owner, the wallet as it has it, and
    no longer than that lasts where no duration is asked for.

    Raises:
        InvalidInput: the owner is another, the agent is not registered, or is another and a
            session's holder asks, the session would not be on the chain although its parent is, or
            fewer operators than for the parent could approve.
        Conflict: the parent or one above it is not active, or there are too many sessions.
    """
    parent = line[0]
    for above in line:
        state = "expired" if now_ms >= above.expires_ms else above.state
        if state != "active":
            raise Conflict(f"session {above.id} is {state}", code="parent_not_active")
    owner = None if parent.grant.owner == ZERO_ADDRESS else parent.grant.owner
    same_wallet = new.user_wallet == parent.user_wallet if owner is None else new.owner == owner
    if not same_wallet:
        raise InvalidInput("user_wallet", f"is not the parent's, {parent.user_wallet}")
    if parent.mint_pkp and not new.mint_pkp:
        # Its decisions would not wait for a chain on which the parent may have been revoked.
        raise InvalidInput("mint_pkp", "must be true: the parent has an identity on the chain")
    required = new.approvals_required or parent.approvals_required
    if required < parent.approvals_required:
        raise InvalidInput(
            "approvals_required", f"is below the parent's {parent.approvals_required}"
        )
    if new.agent_id != parent.agent_id:
        if any(new.by == above.id for above in line):
            # It would spend from that agent's budget, and no more from its own.
            raise InvalidInput("agent_id", "is not the parent's: only operators name another")
        if not is_registered(read, parent.workspace_id, new.agent_id):
            raise InvalidInput(
                "agent_id", "is neither the parent's nor registered in the workspace"
            )
    if len(line) >= DEPTH_MAX:
        raise Conflict(f"at most {DEPTH_MAX} sessions in a line", code="delegation_too_deep")
    whole = sa.select(sa.func.count()).select_from(family(line[-1].id).subquery())
    if read(whole).scalar_one() > DESCENDANTS_MAX:  # itself is counted, too
        raise Conflict(
            f"at most {DESCENDANTS_MAX} sessions beneath one", code="too_many_descendants"
        )
    duration_ms = new.duration_ms or min(DURATION_MS, parent.expires_ms - now_ms)
    return replace(
        new,
        owner=owner,
        user_wallet=parent.user_wallet,
        approvals_required=required,
        duration_ms=duration_ms,
    )


def check_narrower(grant: Grant, line: Sequence[SessionView]) -> None:
    """Refuse a grant that allows more than those it is delegated from, restrictions included.

    Raises:
        InvalidInput: naming the field as it is called in a request.
    """
    policy = grant.policy()
    for ancestor in line:
        if (wider := narrower(policy, ancestor.policy)) is not None:
            field, _, reason = wider.partition(": ")
            raise InvalidInput(_CALLERS_WORDS.get(field, field), reason)
