"""Webhooks: where events are sent, what came of it, and sending once more."""

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from api.rest.webhook_answers import attempt_json, tried_json, webhook_json
from api.rest.webhook_bodies import CreateWebhook, TryWebhook
from api.studio.asked import Asked, PageView
from api.studio.forms import EDIT, again, ticked, validated
from api.studio.paging import paged
from engine.errors import InvalidInput
from engine.webhooks.catalogue import EVENTS, EVERY

ATTEMPTS = 25


def everything(asked: Asked) -> PageView:
    """All of the workspace."""
    webhooks, workspace_id = asked.engine.webhooks, asked.who.workspace_id
    waiting = webhooks.waiting(workspace_id)
    data = {
        "webhooks": [
            webhook_json(each, waiting.get(each.id, 0)) for each in webhooks.list(workspace_id)
        ],
        "deleted": asked.query.get("deleted") == "1",
    }
    return PageView("webhooks.html", "Webhooks", data)


def new(asked: Asked) -> PageView:
    """The form of a webhook; filled in, what the passkey is to confirm."""
    query = asked.query
    given: dict[str, Any] = {
        "url": query.get("url", "").strip(),
        "description": query.get("description", "").strip(),
        "events": ticked(query, "event"),
    }
    asked_for = _act(_wanted(given)) if given["url"] and EDIT not in query else None
    data = {
        "given": given,
        "events": EVENTS,
        "every": EVERY,
        "asked_for": asked_for,
        "again": again(query),
    }
    return PageView("new_webhook.html", "New webhook", data)


def create(asked: Asked) -> Response:
    """Make it, by passkey; its secret is shown once."""
    form, who = asked.form, asked.who
    body = _wanted({**form, "events": form.get("events", "").split()})
    asked.check_proof(_act(body))
    endpoint, secret = asked.engine.webhooks.create(
        who.workspace_id, body.url, body.events, description=body.description, by=who.key_id
    )
    return _with_secret(asked, endpoint.id, secret)


def one(asked: Asked) -> PageView:
    """One webhook, and what was sent."""
    return _one(asked, asked.path["webhook_id"])


def test(asked: Asked) -> Response:
    """Send a made-up event now, and show what came of it."""
    webhook_id, who = asked.path["webhook_id"], asked.who
    body = validated(TryWebhook, {"event": asked.form.get("event", "")})
    told = tried_json(*asked.engine.webhooks.test(who.workspace_id, webhook_id, body.event))
    view = _one(asked, webhook_id)
    view.data["tried"] = told
    return asked.page(view)


def replay(asked: Asked) -> Response:
    """Deliver once more what happened since then."""
    webhook_id, text = asked.path["webhook_id"], asked.form.get("since", "")
    try:
        since = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput("since", "takes a time such as 2026-01-31T09:00 (UTC)") from error
    since_ms = max(0, int(since.replace(tzinfo=since.tzinfo or UTC).timestamp() * 1000))
    who = asked.who
    asked.engine.webhooks.replay(who.workspace_id, webhook_id, since_ms, by=who.key_id)
    return asked.see(f"/webhooks/{webhook_id}")


def switch(asked: Asked) -> Response:
    """Stop it for a while, or let it go on where it stopped."""
    webhook_id, who = asked.path["webhook_id"], asked.who
    active = asked.form.get("active") == "yes"
    asked.engine.webhooks.change(who.workspace_id, webhook_id, active=active, by=who.key_id)
    return asked.see(f"/webhooks/{webhook_id}")


def rotate(asked: Asked) -> Response:
    """Give it another secret, by passkey: it is shown once, and for a day both sign."""
    webhook_id, who = asked.path["webhook_id"], asked.who
    asked.check_proof({"act": "rotate a webhook's secret", "webhook": webhook_id})
    _, secret = asked.engine.webhooks.rotate(who.workspace_id, webhook_id, by=who.key_id)
    return _with_secret(asked, webhook_id, secret)


def delete(asked: Asked) -> Response:
    """Send nothing there any more."""
    who = asked.who
    asked.engine.webhooks.delete(who.workspace_id, asked.path["webhook_id"], by=who.key_id)
    return asked.see("/webhooks?deleted=1")


def _one(asked: Asked, webhook_id: str) -> PageView:
    webhooks, workspace_id = asked.engine.webhooks, asked.who.workspace_id
    endpoint = webhooks.get(workspace_id, webhook_id)
    attempts, total, pages = paged(
        asked,
        lambda offset, limit: webhooks.attempts(
            workspace_id, webhook_id, offset=offset, limit=limit
        ),
        ATTEMPTS,
    )
    data = {
        "webhook": webhook_json(endpoint, webhooks.waiting(workspace_id).get(webhook_id, 0)),
        "attempts": [attempt_json(each) for each in attempts],
        "attempts_total": total,
        "pages": pages,
        "events": EVENTS,
        "tried": None,
    }
    return PageView("webhook.html", endpoint.description or "A webhook", data)


def _with_secret(asked: Asked, webhook_id: str, secret: str) -> Response:
    view = _one(asked, webhook_id)
    view.private["secret"] = secret
    return asked.page(view)


def _wanted(given: dict[str, Any]) -> CreateWebhook:
    told = {name: given.get(name) for name in ("url", "description", "events") if given.get(name)}
    return validated(CreateWebhook, {"events": [EVERY], **told})


def _act(body: CreateWebhook) -> dict[str, str]:
    return {
        "act": "make a webhook",
        "url": body.url,
        "description": body.description or "",
        "events": " ".join(body.events),
    }
