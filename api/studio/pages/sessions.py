"""The inventory of sessions, and revoking many of them at once."""

from typing import Any, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from api.rest.queries import SessionStatus
from api.rest.views import session_json, time_text, usd
from api.studio.asked import Asked, PageView
from engine.audit.replay import LIVE_STATES
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.decide import Left
from engine.policy.limits import Limits
from engine.sessions.inventory import Filter, Order, Used, digest
from engine.sessions.lifecycle import Wanted
from engine.sessions.session import SessionView

PAGE = 25
NEAR_LIMIT = 0.8
NEAR_EXPIRY_MS = 3_600_000
ORDERS: tuple[Order, ...] = get_args(Order)
STATUSES: tuple[str, ...] = get_args(SessionStatus)
WINDOWS = (("per_day", "24 hours"), ("per_week", "7 days"), ("per_month", "30 days"))
_TEXT_MAX = 128
_FIELDS = ("type", "status", "chain", "agent", "label", "search", "sort")


def inventory(asked: Asked) -> PageView:
    """All sessions of one type, as the query filters and sorts them."""
    sought, given = read_filter(asked, dict(asked.query))
    number = max(1, whole_number(asked, "page", 1))
    found, total = asked.studio.inventory.page(
        asked.who.workspace_id,
        sought,
        given["sort"],
        offset=(number - 1) * PAGE,
        limit=PAGE,
    )
    futures = [asked.engine.ledger.left(each.view.id) for each in found]
    rows = [
        session_row(asked.engine, used, left.result())
        for used, left in zip(found, futures, strict=True)
    ]
    data = {
        "sessions": rows,
        "total": total,
        "filter": given,
        "pages": {"page": number, "of": max(1, -(-total // PAGE))},
        "statuses": STATUSES,
        "sorts": ORDERS,
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


def session_row(engine: Engine, used: Used, left: Left) -> dict[str, Any]:
    """A session as REST tells it, with its use and its health."""
    view = used.view
    last = used.last_used_ms
    use = utilisation(view.policy.limits, left)
    told: dict[str, Any] = {
        **session_json(engine, view, left),
        "requests": used.requests,
        "last_used_at": None if last is None else time_text(last),
        "utilisation": use,
    }
    lives = told["is_active"] or told["resumes_at"] is not None
    told["health"] = _health(engine, view, lives, use)
    return told


def utilisation(limits: Limits, left: Left) -> list[dict[str, Any]]:
    """How much of each window's limit is used now; a session without limits has none."""
    found = []
    for name, window in WINDOWS:
        limit, remaining = getattr(limits, name), getattr(left.remaining, name)
        if limit is None or remaining is None:
            continue
        used = max(0, limit - remaining)
        share = round(used / limit, 4) if limit else 1.0
        found.append(
            {
                "window": window,
                "limit_usd": usd(limit),
                "used_usd": usd(used),
                "share": min(1.0, share),
                "near": share >= NEAR_LIMIT,
            }
        )
    return found


def _health(engine: Engine, view: SessionView, lives: bool, use: list[dict[str, Any]]) -> list[str]:
    if not lives or view.state not in LIVE_STATES:
        return []
    near = [f"{each['share']:.0%} used in {each['window']}" for each in use if each["near"]]
    soon = view.expires_ms - engine.clock() <= NEAR_EXPIRY_MS
    return [*near, *(["expires within the hour"] if soon else [])]


def _link(given: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in given.items() if value})


def whole_number(asked: Asked, name: str, default: int) -> int:
    """A number in the query.

    Raises:
        InvalidInput: it is none, or above a million.
    """
    text = asked.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= 1_000_000):
        raise InvalidInput(name, "takes a whole number")
    return int(text)
