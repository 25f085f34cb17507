"""Who may do what, and inviting somebody."""

from typing import Literal

from starlette.responses import Response

from api.rest.views import time_text
from api.studio.asked import Asked, PageView
from engine.workspaces.access import SETUP_TOKEN_PREFIX
from engine.workspaces.operator_keys import OperatorKey
from engine.workspaces.people import ACTS, MAY, ROLES, Act

WORDS: dict[Act, str] = {
    "look": "See sessions, payments and approvals",
    "examine": "See evidence, the log, agents, keys, budgets, reconciliation",
    "try": "Try payments that are only simulated",
    "approve": "Grant and deny approvals",
    "tighten": "Pause and revoke sessions, revoke keys of agents",
    "loosen": "Open, replace, restrict, resume sessions; set budgets; register agents, make keys",
    "connect": "Webhooks",
    "invite": "Invite and revoke people, revoke keys of operators",
}


def everybody(asked: Asked) -> PageView:
    """The people of the workspace, and the roles."""
    keys = asked.engine.keys.operators.list(asked.who.workspace_id)
    role, name = asked.query.get("role", ""), asked.query.get("name", "").strip()
    data = {
        "people": [
            {
                "id": key.id,
                "name": key.name,
                "role": key.role,
                "created_at": time_text(key.created_ms),
                "state": _state(asked, key),
            }
            for key in keys
            if key.prefix.startswith(SETUP_TOKEN_PREFIX)
        ],
        "roles": {role: [act for act in ACTS if act in MAY[role]] for role in ROLES},
        "acts": WORDS,
        "link": None,
        "invited": {"role": role, "name": name} if role in ROLES and name else None,
    }
    return PageView("people.html", "People", data)


def _state(asked: Asked, key: OperatorKey) -> Literal["revoked", "active", "invited"]:
    if key.revoked_ms is not None:
        return "revoked"
    return "active" if asked.studio.people.passkeys(key.id) else "invited"


def invite(asked: Asked) -> Response:
    """Make a person, by passkey; the link in the answer is not shown again."""
    role, name = asked.form.get("role", ""), asked.form.get("name", "")
    asked.check_proof({"act": "invite", "role": role, "name": name})
    token = asked.studio.people.invite(asked.who, role, name)
    view = everybody(asked)
    view.data["link"] = f"{asked.place.origin}/studio/set-up#{token}"
    return asked.page(view)


def revoke(asked: Asked) -> Response:
    """Somebody is out, in every browser; the last admin cannot be."""
    key_id = asked.path["key_id"]
    asked.studio.people.revoke(asked.who, key_id)
    return asked.see("/sign-in" if key_id == asked.who.key_id else "/people")
