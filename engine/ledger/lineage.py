"""From which sessions a session descends, as their grants tell it, and what binds each."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from engine.audit import restricting
from engine.audit.canonical import decode_object
from engine.audit.delegation import DEPTH_MAX
from engine.audit.lowering import Lowering, inherited, lowered_from_json
from engine.db.database import Read
from engine.db.tables import Session, table
from engine.grant import NO_PARENT, Grant
from engine.policy.decision import Policy

_sessions = table(Session)


def policy_of(row: Mapping[Any, Any], grant: Grant) -> Policy:
    """What the row of a session with this grant says that it may do.

    Raises:
        ValueError, TypeError: its restrictions or its limits are none.
    """
    lowered = (each.limits for each in lowered_from_json(row["lowered_json"]))
    above = restricting.above_from_json(row["restrictions_above_json"])
    return grant.policy(json.loads(row["restrictions_json"]), lowered, above.values())


def stored_row(read: Read, session_id: str) -> Mapping[Any, Any] | None:
    """The row of a session."""
    return read(sa.select(_sessions).where(_sessions.c.id == session_id)).mappings().first()


def lowered_above(grant: Grant, line: Sequence[Mapping[Any, Any]]) -> list[Lowering]:
    """What binds a session with this grant of what was lowered for the sessions with these rows.

    Raises:
        ValueError: the limits that a row tells of are none.
    """
    return [
        bound
        for row in line
        for bound in inherited(grant.limits, row["id"], lowered_from_json(row["lowered_json"]))
    ]


def restricted_above(grant: Grant, line: Sequence[Mapping[Any, Any]]) -> restricting.Above:
    """What binds a session with this grant of the restrictions of the sessions with these rows.

    Raises:
        ValueError: what a row tells of are none.
    """
    bound = {
        row["id"]: restricting.inherited(grant, json.loads(row["restrictions_json"]))
        for row in line
    }
    return {session_id: sentences for session_id, sentences in bound.items() if sentences}


def line_above(
    find: Callable[[str], Mapping[Any, Any] | None], parent_id: str | None, grant: Grant
) -> list[tuple[Mapping[Any, Any], Grant]]:
    """The rows and the grants of the sessions above the one with `grant`, its parent first.

    `find` has the row of a session.

    Raises:
        ValueError: they are not of a line of grants that name each other.
    """
    line: list[tuple[Mapping[Any, Any], Grant]] = []
    below = grant
    while parent_id is not None and len(line) < DEPTH_MAX:
        row = find(parent_id)
        if row is None or row["workspace_id"] != grant.workspace:
            raise ValueError("its parent is missing")
        if not isinstance(row["grant_json"], str):
            raise ValueError("its parent's grant is no text")  # noqa: TRY004
        above = Grant.from_json(decode_object(row["grant_json"].encode()))
        if above.hash() != below.parent:
            raise ValueError("its parents are not those of its grant")
        line.append((row, above))
        below, parent_id = above, row["parent_id"]
    if below.parent != NO_PARENT or len(line) >= DEPTH_MAX:
        raise ValueError("its parents are not those of its grant")
    return line
