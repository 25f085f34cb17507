"""Budgets: what all sessions of an agent, or of the workspace, may spend together."""

from typing import Any

from starlette.responses import Response

from api.rest.schemas import SetBudget
from api.rest.views import time_text
from api.studio.asked import Asked, PageView
from api.studio.forms import EDIT, again, plain_dollars, shown, validated, whole
from api.studio.gauges import budgeted
from engine.errors import InvalidInput, NotFound
from engine.workspaces.budgets import BudgetView

TITLES = {
    "max_per_day": "Per 24 hours",
    "max_per_week": "Per 7 days",
    "max_per_month": "Per 30 days",
    "max_lifetime": "Ever",
    "max_payments_per_hour": "Payments per hour",
    "max_payments_per_day": "Payments per 24 hours",
}
COUNTS = ("max_payments_per_hour", "max_payments_per_day")


def everything(asked: Asked) -> PageView:
    """All budgets, with what is used of them."""
    engine, workspace_id = asked.engine, asked.who.workspace_id
    gauges = engine.ledger.budgets_used(workspace_id).result()
    used = {each["id"]: each for each in budgeted(gauges)}
    found = engine.budgets.list(workspace_id)
    agents = engine.agents.list(workspace_id)
    names = {each.id: each.name for each in agents}
    data = {
        "budgets": [
            {
                "id": view.id,
                "agent_id": view.agent_id,
                "name": names.get(view.agent_id or "") or view.agent_id,
                "limits": used[view.id]["limits"] if view.id in used else [],
                "version": view.version,
                "updated_at": time_text(view.updated_ms),
            }
            for view in sorted(found, key=lambda each: each.agent_id or "")
        ],
        "agents": [{"id": each.id, "name": each.name} for each in agents],
    }
    return PageView("budgets.html", "Budgets", data)


def new(asked: Asked) -> PageView:
    """The form, as the budget is now; filled in, what the passkey is to confirm."""
    query = asked.query
    agent_id, agents = query.get("agent", "").strip(), asked.engine.agents
    known = [each.id for each in agents.list(asked.who.workspace_id)]
    if agent_id and agent_id not in known:
        raise NotFound("no such agent", code="agent_not_found")
    before = _now(asked, agent_id or None)
    given = _given_by(before)
    wanted: dict[str, str] | None = None
    wrong: dict[str, str] | None = None
    if "given" in query:
        given = {name: query.get(name, "").strip() for name in TITLES}
        try:
            _wanted(given)
            wanted = None if EDIT in query else _act(agent_id, given)
        except InvalidInput as error:
            wrong = shown(error)
    data = {
        "agent_id": agent_id,
        "agents": known,
        "given": given,
        "before": _given_by(before),
        "titles": TITLES,
        "counts": COUNTS,
        "exists": before is not None,
        "lifting": {"act": "lift a budget", "agent": agent_id},
        "wanted": wanted,
        "again": again(query),
        "wrong": wrong,
    }
    title = f"Budget of {agent_id}" if agent_id else "Budget of the workspace"
    return PageView("budget.html", title, data)


def put(asked: Asked) -> Response:
    """Set it, which may allow more than before: by passkey."""
    form, who = asked.form, asked.who
    agent_id = form.get("agent", "")
    given = {name: form.get(name, "") for name in TITLES}
    body = _wanted(given)
    asked.check_proof(_act(agent_id, given))
    asked.engine.budgets.set(who.workspace_id, agent_id or None, body.limits(), by=who.key_id)
    return asked.see("/budgets")


def lift(asked: Asked) -> Response:
    """Lift it, by passkey."""
    agent_id, who = asked.form.get("agent", ""), asked.who
    asked.check_proof({"act": "lift a budget", "agent": agent_id})
    asked.engine.budgets.clear(who.workspace_id, agent_id or None, by=who.key_id)
    return asked.see("/budgets")


def _now(asked: Asked, agent_id: str | None) -> BudgetView | None:
    try:
        return asked.engine.budgets.get(asked.who.workspace_id, agent_id)
    except NotFound:
        return None


def _given_by(view: BudgetView | None) -> dict[str, str]:
    """The form as it would have to be filled for this budget."""
    if view is None:
        return dict.fromkeys(TITLES, "")
    limits = {name: getattr(view.limits, name.removeprefix("max_")) for name in TITLES}
    return {
        name: str(limit) if name in COUNTS and limit is not None else plain_dollars(limit)
        for name, limit in limits.items()
    }


def _wanted(given: dict[str, str]) -> SetBudget:
    told: dict[str, Any] = {name: given[name].strip() or None for name in TITLES}
    told |= {name: whole(given, name) for name in COUNTS}
    body = validated(SetBudget, told)
    if not body.limits().caps():
        raise InvalidInput("max_per_day", "or another limit is needed; to have none, lift it")
    return body


def _act(agent_id: str, given: dict[str, str]) -> dict[str, str]:
    return {"act": "set a budget", "agent": agent_id, **given}
