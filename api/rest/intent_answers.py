"""What callers get of payment intents. Money is in dollars, times are ISO 8601 in UTC."""

import json
from typing import Any, Literal

from typing_extensions import TypedDict

from api.rest.answers import Dollars
from api.rest.views import time_text
from engine.ledger.intent import Intent
from engine.ledger.intents import IntentEvent
from engine.policy.money import usd_number


class IntentAnswer(TypedDict):
    """A payment intent. `client_secret` is in the answer that creates it and in no other.

    `code` says why it failed or was canceled. `payment_id` is the payment that was decided for it,
    `approval_id` what that waits for or waited for.
    """

    id: str
    amount: Dollars
    currency: Literal["USD"]
    description: str | None
    merchant_id: str | None
    payment_token: str
    chain: str
    status: Literal["requires_payment", "processing", "succeeded", "canceled", "failed"]
    code: str | None
    capture_method: Literal["automatic", "manual"]
    amount_captured: Dollars
    agent_id: str | None
    agent_name: str | None
    session_id: str | None
    payment_id: str | None
    approval_id: str | None
    metadata: dict[str, Any]
    created_at: str
    expires_at: str


class CreatedIntent(IntentAnswer):
    """A new payment intent with its client secret, which is not shown again."""

    client_secret: str


class IntentEventAnswer(TypedDict):
    """What was told of an intent; `data` and `id` are as webhooks have them."""

    id: str
    payment_intent_id: str
    event_type: str
    data: dict[str, Any]
    created_at: str


def intent_json(intent: Intent) -> IntentAnswer:
    """A payment intent."""
    sent = intent.sent
    return {
        "id": intent.id,
        "amount": usd_number(intent.amount),
        "currency": "USD",
        "description": sent["description"],
        "merchant_id": sent["merchant"],
        "payment_token": sent["token"],
        "chain": sent["chain"],
        "status": intent.state,
        "code": intent.code,
        "capture_method": intent.capture_method,
        "amount_captured": usd_number(intent.captured),
        "agent_id": intent.agent_id,
        "agent_name": sent["agent_name"],
        "session_id": intent.session_id,
        "payment_id": intent.payment_id,
        "approval_id": intent.approval_id,
        "metadata": json.loads(sent["metadata_json"]),
        "created_at": time_text(intent.created_ms),
        "expires_at": time_text(intent.expires_ms),
    }


def intent_event_json(intent: Intent, event: IntentEvent) -> IntentEventAnswer:
    """An event of an intent."""
    return {
        "id": f"evt_{event.stream}_{event.sequence}",
        "payment_intent_id": intent.id,
        "event_type": event.name,
        "data": json.loads(event.payload_json),
        "created_at": time_text(event.created_ms),
    }
