"""What callers get to see of webhooks."""

from typing import Literal

from typing_extensions import TypedDict

from api.rest.answers import Pagination
from api.rest.views import time_text
from engine.webhooks.egress import Outcome
from engine.webhooks.endpoint import Endpoint
from engine.webhooks.endpoints import Attempt


class WebhookAnswer(TypedDict):
    """An endpoint. `waiting` events failed and are tried again; `failures` counts attempts since
    the last success. `disabled_reason` is null where an operator disabled it."""

    id: str
    url: str
    events: list[str]
    description: str | None
    active: bool
    disabled_reason: Literal["failing", "gone"] | None
    failures: int
    waiting: int
    last_success_at: str | None
    created_at: str


class CreatedWebhook(WebhookAnswer):
    """A new endpoint with its secret, which is not shown again."""

    secret: str


class RotatedWebhook(TypedDict):
    """The new secret, which is not shown again; the one before it signs too for a while."""

    id: str
    secret: str
    previous_valid_until: str


class DeletedWebhook(TypedDict):
    """Nothing is sent there any more."""

    success: Literal[True]


class TriedWebhook(TypedDict):
    """What came of a made-up event: a status, or the error why there is none."""

    success: bool
    event_id: str
    status_code: int | None
    error: str | None
    response_time_ms: int


class ReplayedWebhook(TypedDict):
    """It is delivered once more in the background."""

    success: Literal[True]


class AttemptAnswer(TypedDict):
    """One attempt to deliver an event."""

    id: str
    event_id: str
    event: str
    url: str
    status_code: int | None
    error: str | None
    response_time_ms: int
    delivered_at: str
    success: bool
    retry_count: int
    next_retry: str | None


class AttemptsPage(TypedDict):
    """A page of attempts, the newest first."""

    logs: list[AttemptAnswer]
    pagination: Pagination


def webhook_json(endpoint: Endpoint, waiting: int = 0) -> WebhookAnswer:
    """An endpoint without its secret."""
    succeeded_ms = endpoint.succeeded_ms
    reason: Literal["failing", "gone"] | None = endpoint.disabled_reason  # type: ignore[assignment]
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "description": endpoint.description,
        "active": endpoint.active,
        "disabled_reason": reason,
        "failures": endpoint.failures,
        "waiting": waiting,
        "last_success_at": None if succeeded_ms is None else time_text(succeeded_ms),
        "created_at": time_text(endpoint.created_ms),
    }


def attempt_json(attempt: Attempt) -> AttemptAnswer:
    """One attempt."""
    return {
        "id": str(attempt.number),
        "event_id": attempt.event_id,
        "event": attempt.event,
        "url": attempt.url,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "response_time_ms": attempt.took_ms,
        "delivered_at": time_text(attempt.attempted_ms),
        "success": attempt.success,
        "retry_count": attempt.attempt,
        "next_retry": None if attempt.next_ms is None else time_text(attempt.next_ms),
    }


def tried_json(event_id: str, outcome: Outcome) -> TriedWebhook:
    """What came of a test. The receiver's body is nobody's business, and was not read."""
    return {
        "success": outcome.success,
        "event_id": event_id,
        "status_code": outcome.status_code,
        "error": outcome.error,
        "response_time_ms": outcome.took_ms,
    }
