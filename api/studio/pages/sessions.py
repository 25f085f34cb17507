"""The inventory of sessions, and revoking many of them at once."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from api.rest.queries import SessionStatus
from api.rest.views import session_json, time_text
from api.studio.asked import Asked, PageView
from api.studio.gauges import EVER, budgeted, capped, near, utilisation
from api.studio.paging import paged, whole_number
from engine.audit.replay import LIVE_STATES
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.decide import Left
from engine.sessions.inventory import NOTHING_LEFT, Filter, Order, Used, digest, left_of_each
from engine.sessions.lifecycle import Wanted
from engine.sessions.session import SessionView
from engine.workspaces.budgets import budget_id

PAGE = 25
NEAR_EXPIRY_MS = 3_600_000
ORDERS: tuple[Order, ...] = get_args(Order)
STATUSES: tuple[str, ...] = get_args(SessionStatus)
AGENTS_LISTED = 200
Budgeted = Mapping[str, dict[str, Any]]
_TEXT_MAX = 128
_FIELDS = ("type", "status", "chain", "agent", "label", "search", "sort")


def inventory(asked: Asked) -> PageView:
    """All sessions of one type, as the query filters and sorts them."""
    engine, who = asked.engine, asked.who
    sought, given = read_filter(asked, dict(asked.query))

    def read(offset: int, limit: int) -> tuple[list[Used], int]:
        order: Order = given["sort"]
        return asked.studio.inventory.page(
            who.workspace_id, sought, order, offset=offset, limit=limit
        )

    found, total, pages = paged(asked, read, PAGE)
    lefts = left_of_each(engine.ledger.left, [each.view for each in found])
    above = budgets_above(asked, [each.view.agent_id for each in found])
    chains = dict.fromkeys((engine.deployment.chain, *engine.networks.gateways, given["chain"]))
    data = {
        "sessions": [
            session_row(engine, used, left, above) for used, left in zip(found, lefts, strict=True)
        ],
        "total": total,
        "filter": given,
        "filtered": any(given[name] for name in _FIELDS if name not in ("type", "sort")),
        "pages": pages,
        "statuses": STATUSES,
        "sorts": ORDERS,
        "chains": [each for each in chains if each],
        "agents": [each.id for each in engine.agents.list(who.workspace_id)[:AGENTS_LISTED]],
        "link": _link(given),
        "revoked": whole_number(asked, "revoked", 0),
    }
    return PageView("sessions.html", "Sessions", data)


def preview(asked: Asked) -> PageView:
    """Which sessions a bulk revocation would end: counted and named, before anything happens."""
    sought, given = read_filter(asked, dict(asked.query))
    views = asked.studio.inventory.to_revoke(asked.who.workspace_id, sought)
    data = {
        "count": len(views),
        "seen": digest(views),
        "sessions": [
            {
                "id": view.id,
                "type": view.type,
                "label": view.label,
                "agent_id": view.agent_id,
                "status": view.state,
                "expires_at": time_text(view.expires_ms),
            }
            for view in views
        ],
        "filter": given,
        "link": _link(given),
    }
    return PageView("revoke.html", "Revoke sessions", data)


def revoke(asked: Asked) -> Response:
    """End exactly those that were shown, all or none."""
    sought, given = read_filter(asked, dict(asked.form))
    who = asked.who
    count = asked.studio.inventory.revoke(
        who.workspace_id, sought, asked.form.get("seen", ""), by=who.key_id
    )
    return asked.see(f"/?{urlencode({'type': given['type'], 'revoked': count})}")


def read_filter(asked: Asked, query: dict[str, str]) -> tuple[Filter, dict[str, Any]]:
    """What is sought, and how it was said.

    Raises:
        InvalidInput: naming the field.
    """
    given: dict[str, Any] = {name: query.get(name, "").strip() for name in _FIELDS}
    given["type"] = given["type"] or "agent"
    given["sort"] = given["sort"] or ORDERS[0]
    for name, known in (
        ("type", ("agent", "app", "all")),
        ("status", ("", *STATUSES)),
        ("sort", ORDERS),
    ):
        if given[name] not in known:
            raise InvalidInput(name, f"takes one of {', '.join(filter(None, known))}")
    for name in _FIELDS:
        if len(given[name]) > _TEXT_MAX or not given[name].isprintable():
            raise InvalidInput(name, f"takes at most {_TEXT_MAX} printable characters")
    wanted = Wanted(
        asked.now_ms,
        state=given["status"] or None,
        type=None if given["type"] == "all" else given["type"],
        agent_id=given["agent"] or None,
        label=given["label"] or None,
    )
    return Filter(wanted, given["chain"] or None, given["search"] or None), given


def budgets_above(asked: Asked, agents: Iterable[str]) -> Budgeted:
    """The budgets of these agents and of the workspace, by their ids, with what is used of them."""
    wanted = {budget_id(None), *map(budget_id, agents)}
    used = asked.engine.ledger.budgets_used(asked.who.workspace_id, *wanted).result()
    return {each["id"]: each for each in budgeted(used)}


def session_row(engine: Engine, used: Used, left: Left | None, above: Budgeted) -> dict[str, Any]:
    """A session as REST tells it, with its use and its health; `above` are budgets that may be its
    own. Without `left` it is damaged, and its use is not known."""
    view = used.view
    last = used.last_used_ms
    damaged, left = left is None, left or NOTHING_LEFT
    use = [] if damaged else utilisation(view.policy.limits, left)
    caps = capped(left)
    mine = [above[each] for each in (budget_id(view.agent_id), budget_id(None)) if each in above]
    told: dict[str, Any] = {
        **session_json(engine, view, left),
        "requests": used.requests,
        "last_used_at": None if last is None else time_text(last),
        "utilisation": use,
        "caps": caps,
        "budgets": mine,
    }
    lives = told["is_active"] or told["resumes_at"] is not None
    told["health"] = _health(engine, view, use, caps, mine) if lives else []
    if damaged:
        told |= {"is_active": False, "health": ["damaged: nothing is paid", *told["health"]]}
    return told


def _health(
    engine: Engine,
    view: SessionView,
    use: list[dict[str, Any]],
    caps: list[dict[str, Any]],
    above: list[dict[str, Any]],
) -> list[str]:
    if view.state not in LIVE_STATES:
        return []
    windows = [each for each in use if each["near"] and each["window"] != EVER]
    soon = view.expires_ms - engine.clock() <= NEAR_EXPIRY_MS
    return [
        *(f"{each['share']:.0%} used in {each['window']}" for each in windows),
        *(f"{each['share']:.0%} used: {each['name']}" for each in caps if each["near"]),
        *(["expires within the hour"] if soon else []),
        *near(above),
    ]


def _link(given: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in given.items() if value})
