"""Restrictions: conditions of an operator's that narrow a session while it lives."""

from typing import Any

from starlette.responses import Response

from api.studio import conditions
from api.studio.asked import Asked, PageView
from api.studio.forms import EDIT, again, lines, shown
from engine.audit.replay import LIVE_STATES
from engine.errors import Conflict, InvalidInput
from engine.sessions.sentences import in_order
from engine.sessions.session import SessionView

FIELD = "restrictions"


def new(asked: Asked) -> PageView:
    """The form, as the session is restricted now; filled in, what the passkey is to confirm."""
    view = _session(asked)
    given = conditions.fields_of(view.restrictions)
    wanted: dict[str, Any] | None = None
    wrong: dict[str, str] | None = None
    if "given" in asked.query:
        given = conditions.asked_for(asked.query)
        try:
            change = _change(view, _said(given))
            wanted = None if EDIT in asked.query else change
        except InvalidInput as error:
            wrong = shown(error)
    data = {
        "session_id": view.id,
        "label": view.label or view.agent_id,
        "signed": list(view.grant.conditions),
        "given": given,
        "titles": conditions.TITLES,
        "wrong": wrong,
        "wanted": wanted,
        "again": again(asked.query),
    }
    return PageView("restrict.html", f"Restrict {view.label or view.agent_id}", data)


def restrict(asked: Asked) -> Response:
    """Put these in the place of those before, which may allow more: by passkey."""
    view, who = _session(asked), asked.who
    said = in_order(lines(asked.form.get(FIELD, "")), FIELD)
    asked.check_proof(_act(view, said))
    asked.engine.sessions.restrict(who.workspace_id, view.id, said, by=who.key_id)
    return asked.see(f"/sessions/{view.id}")


def _session(asked: Asked) -> SessionView:
    view = asked.engine.sessions.get(asked.who.workspace_id, asked.path["session_id"])
    if view.state not in LIVE_STATES:
        raise Conflict(f"the session is {view.state}", code="session_not_live")
    return view


def _said(given: dict[str, Any]) -> tuple[str, ...]:
    said = conditions.sentences(given)
    try:
        return in_order(said, FIELD)
    except InvalidInput as error:
        raise conditions.told(error, said) from error


def _change(view: SessionView, said: tuple[str, ...]) -> dict[str, Any]:
    """What is asked for, and what it makes of the restrictions that there are."""
    return {
        "act": _act(view, said),
        "added": [each for each in said if each not in view.restrictions],
        "kept": [each for each in said if each in view.restrictions],
        "lifted": [each for each in view.restrictions if each not in said],
    }


def _act(view: SessionView, said: tuple[str, ...]) -> dict[str, str]:
    return {"act": "restrict", "session": view.id, FIELD: "\n".join(said)}
