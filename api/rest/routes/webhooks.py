"""Webhooks: where a workspace's events are sent. Only operators see them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.rest.auth import EngineOf, OperatorOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.idempotency import WITH_KEY, IdempotencyKey, mark_replay, once
from api.rest.queries import Page
from api.rest.views import time_text
from api.rest.webhook_answers import (
    AttemptsPage,
    CreatedWebhook,
    DeletedWebhook,
    ReplayedWebhook,
    RotatedWebhook,
    TriedWebhook,
    WebhookAnswer,
    attempt_json,
    tried_json,
    webhook_json,
)
from api.rest.webhook_bodies import ChangeWebhook, CreateWebhook, ReplayWebhook, TryWebhook

router = APIRouter(
    prefix="/api/v1/webhooks",
    route_class=ExactJsonRoute,
    tags=["webhooks"],
    responses=documented(401, 422, 503),
)


@router.post(
    "",
    status_code=201,
    summary="Make a webhook",
    responses=documented(404, 409, 415),
    openapi_extra=WITH_KEY,
)
def create_webhook(
    body: CreateWebhook,
    engine: EngineOf,
    caller: OperatorOf,
    key: IdempotencyKey,
    response: Response,
) -> CreatedWebhook:
    """It is told of everything from now on. The secret in the answer is shown again only to the
    same request under the same idempotency key; 404 if that webhook is deleted."""
    asked = once(engine, caller, key, "webhooks", body)
    endpoint, secret = engine.webhooks.create(
        caller.workspace_id,
        body.url,
        body.events,
        description=body.description,
        by=caller.key_id,
        once=asked,
    )
    mark_replay(response, asked)
    return {**webhook_json(endpoint), "secret": secret}


@router.get("", summary="List webhooks")
def list_webhooks(engine: EngineOf, caller: OperatorOf) -> list[WebhookAnswer]:
    """All of the workspace, the oldest first."""
    waiting = engine.webhooks.waiting(caller.workspace_id)
    return [
        webhook_json(endpoint, waiting.get(endpoint.id, 0))
        for endpoint in engine.webhooks.list(caller.workspace_id)
    ]


@router.patch("/{webhook_id}", summary="Change a webhook", responses=documented(404, 415))
def change_webhook(
    webhook_id: str, body: ChangeWebhook, engine: EngineOf, caller: OperatorOf
) -> WebhookAnswer:
    """What is given takes the place of what was. One that is active again goes on where it
    stopped."""
    given = body.model_dump(include=body.model_fields_set)
    endpoint = engine.webhooks.change(caller.workspace_id, webhook_id, **given, by=caller.key_id)
    return webhook_json(endpoint, engine.webhooks.waiting(caller.workspace_id).get(webhook_id, 0))


@router.delete("/{webhook_id}", summary="Delete a webhook", responses=documented(404))
def delete_webhook(webhook_id: str, engine: EngineOf, caller: OperatorOf) -> DeletedWebhook:
    """What waits for it is dropped."""
    engine.webhooks.delete(caller.workspace_id, webhook_id, by=caller.key_id)
    return {"success": True}


@router.post(
    "/{webhook_id}/rotate-secret",
    summary="Rotate a secret",
    responses=documented(404, 409),
    openapi_extra=WITH_KEY,
)
def rotate_secret(
    webhook_id: str,
    engine: EngineOf,
    caller: OperatorOf,
    key: IdempotencyKey,
    response: Response,
) -> RotatedWebhook:
    """For a day deliveries are signed with both secrets. Under the same idempotency key it is
    rotated once."""
    asked = once(engine, caller, key, f"webhooks/{webhook_id}/rotate-secret")
    endpoint, secret = engine.webhooks.rotate(
        caller.workspace_id, webhook_id, by=caller.key_id, once=asked
    )
    mark_replay(response, asked)
    assert endpoint.previous_until_ms is not None
    return {
        "id": endpoint.id,
        "secret": secret,
        "previous_valid_until": time_text(endpoint.previous_until_ms),
    }


@router.post("/{webhook_id}/test", summary="Try a webhook", responses=documented(404, 415))
def try_webhook(
    webhook_id: str, body: TryWebhook, engine: EngineOf, caller: OperatorOf
) -> TriedWebhook:
    """Sends a made-up event now, once, and answers what came of it: never the receiver's body."""
    return tried_json(*engine.webhooks.test(caller.workspace_id, webhook_id, body.event))


@router.get("/{webhook_id}/logs", summary="What was sent", responses=documented(404))
def logs(
    webhook_id: str,
    wanted: Annotated[Page, Query()],
    engine: EngineOf,
    caller: OperatorOf,
) -> AttemptsPage:
    """Attempts, the newest first; the last thousand are kept."""
    attempts, total = engine.webhooks.attempts(
        caller.workspace_id, webhook_id, offset=wanted.offset, limit=wanted.limit
    )
    return {
        "logs": [attempt_json(attempt) for attempt in attempts],
        "pagination": wanted.pagination(total),
    }


@router.post("/{webhook_id}/replay", summary="Deliver once more", responses=documented(404, 415))
def replay(
    webhook_id: str, body: ReplayWebhook, engine: EngineOf, caller: OperatorOf
) -> ReplayedWebhook:
    """Everything that the webhook wants and that happened since then, with the same ids."""
    where, by = caller.workspace_id, caller.key_id
    engine.webhooks.replay(where, webhook_id, body.since_ms, by=by)
    return {"success": True}
