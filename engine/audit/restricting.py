"""Restrictions that operators set, as the records of a session tell of them.

`session.restricted` tells all that are set for the session from then on; with `ancestor_id`, all
that are set for a session above it. Authority never widens: what an operator restricts binds the
sessions beneath, whose own records tell of it where their grants ask less.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.audit.canonical import decode_object, encode
from engine.audit.delegation import DEPTH_MAX
from engine.grant import Grant
from engine.policy.conditions import in_force, parse_conditions
from engine.policy.narrower import missing

RESTRICTED = "session.restricted"
POLICY_VERSION_MAX = 1_000
"""Each change of the restrictions counts all payments again, so there is an end to them."""
CHANGES_ABOVE_MAX = (DEPTH_MAX - 1) * (POLICY_VERSION_MAX - 1)
"""So often can the restrictions of all the sessions above one change."""

Above = Mapping[str, tuple[str, ...]]
"""The restrictions of sessions above one, by their ids; each has some."""


def follow_above(above: Above, body: Mapping[str, Any]) -> Above:
    """Those that count after a record with `ancestor_id`.

    Raises:
        KeyError, TypeError, ValueError: it cannot follow those that count before it.
    """
    ancestor_id, restrictions = body["ancestor_id"], body["restrictions"]
    if not isinstance(ancestor_id, str) or not isinstance(restrictions, list):
        raise TypeError("it names no session, or no list of restrictions")
    if tuple(restrictions) == above.get(ancestor_id, ()):
        raise ValueError("its restrictions count already")
    return _with(above, ancestor_id, tuple(restrictions))


def inherited(grant: Grant, restrictions: Sequence[str]) -> tuple[str, ...]:
    """What binds a session with this grant of the restrictions of one above it: all of them, or
    none where the grant itself asks as much.

    Raises:
        ConditionError: they are none.
    """
    if not restrictions:
        return ()
    asked = in_force(parse_conditions(restrictions, "restrictions"))
    granted = in_force(parse_conditions(grant.conditions))
    return () if missing(granted, asked) is None else tuple(restrictions)


def above_to_json(above: Above) -> str:
    """As it is stored beside a session."""
    return encode({session_id: list(sentences) for session_id, sentences in above.items()}).decode()


def above_from_json(text: str) -> Above:
    """The inverse of `above_to_json`.

    Raises:
        ValueError: it is not its output.
    """
    if text == "{}":  # nearly always
        return {}
    above: Above = {}
    for session_id, sentences in decode_object(text.encode()).items():
        if not isinstance(sentences, list) or not sentences:
            raise ValueError("not the restrictions of sessions: a list is missing or empty")
        above = _with(above, session_id, tuple(sentences))
    if above_to_json(above) != text:
        raise ValueError("not the restrictions of sessions: irregular")
    return above


def _with(above: Above, session_id: str, restrictions: tuple[str, ...]) -> Above:
    others = {each: sentences for each, sentences in above.items() if each != session_id}
    return {**others, session_id: restrictions} if restrictions else others
