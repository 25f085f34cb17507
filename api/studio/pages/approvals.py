"""The inbox of approvals: what waits, and granting or denying it with a passkey."""

from typing import get_args

from starlette.responses import Response

from api.rest.views import approval_json
from api.studio.asked import Asked, PageView
from api.studio.gauges import utilisation
from api.studio.pages.sessions import budgets_above
from api.studio.paging import paged
from engine.errors import Conflict, InvalidInput
from engine.ledger.approval import State

PAGE = 25
STATES: tuple[State, ...] = get_args(State)


def inbox(asked: Asked) -> PageView:
    """What waits, or what became of it."""
    state = next((each for each in STATES if each == asked.query.get("state", "waiting")), None)
    if state is None:
        raise InvalidInput("state", f"takes one of {', '.join(STATES)}")
    workspace_id, now_ms = asked.who.workspace_id, asked.now_ms
    found, total, pages = paged(
        asked,
        lambda offset, limit: asked.engine.approvals.page(
            workspace_id, now_ms, session_id=None, state=state, offset=offset, limit=limit
        ),
        PAGE,
    )
    data = {
        "approvals": [approval_json(each) for each in found],
        "total": total,
        "pages": pages,
        "state": state,
        "states": STATES,
    }
    return PageView("approvals.html", "Approvals", data)


def one(asked: Asked) -> PageView:
    """One, with the digest that a passkey signs."""
    engine, who = asked.engine, asked.who
    found = engine.approvals.get(who.workspace_id, asked.path["approval_id"], asked.now_ms)
    view = engine.sessions.get(who.workspace_id, found.session_id)
    left = engine.ledger.left(view.id).result()
    above = budgets_above(asked, [view.agent_id])
    data = {
        "approval": approval_json(found),
        "utilisation": utilisation(view.policy.limits, left),
        "budgets": list(above.values()),
    }
    return PageView("approval.html", "An approval", data)


def grant(asked: Asked) -> Response:
    """Grant it; the last grant makes the payment."""
    approval_id, who = asked.path["approval_id"], asked.who
    _check_consent(asked, "grant")
    asked.engine.approvals.grant(who.workspace_id, approval_id, by=who.key_id)
    return asked.see(f"/approvals/{approval_id}")


def deny(asked: Asked) -> Response:
    """Deny it; one operator is enough."""
    approval_id, who = asked.path["approval_id"], asked.who
    _check_consent(asked, "deny")
    asked.engine.approvals.deny(who.workspace_id, approval_id, by=who.key_id)
    return asked.see(f"/approvals/{approval_id}")


def _check_consent(asked: Asked, act: str) -> None:
    approval_id = asked.path["approval_id"]
    found = asked.engine.approvals.get(asked.who.workspace_id, approval_id, asked.now_ms)
    if found.state != "waiting":
        raise Conflict(f"the approval is {found.state}", code=f"approval_{found.state}")
    asked.check_proof({"act": act, "approval": approval_id, "digest": found.digest})
