"""Every operation, with what is sent to it and what its rightful caller hears."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.rest.bodies import (
    CAPTURE_INTENT,
    CHECK_PAYMENT,
    CONFIRM,
    GOOD,
    INTENTS,
    KEY_REVOKE,
    KEY_STATUS,
    REPLAY,
    TRY_WEBHOOK,
    WEBHOOKS,
)
from tests.rest.served import APPROVALS, PAYMENTS, SESSIONS, SMART


@dataclass(frozen=True)
class Route:
    """What the rightful caller hears, what is sent, and who hears something else than the table
    of rows can say."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


EVENTS = "/api/v1/events"
GENEROUS = {"max_per_day": 999_999_999}
WORKSPACE_BUDGET = "/api/v1/budgets/workspace"
AGENT_BUDGET = "/api/v1/agents/{agent_id}/budget"
AGENT = "an-agent-of-acme-and-of-nobody-else"
SIGNATURE = {"owner_signature": "0x" + "11" * 65}
NO_OFFER = {
    "payment_required": {"x402Version": 2, "accepts": []},
    "resource": "https://shop.test/",
}
TRANSFER = {"to": "0x" + "5b" * 20, "amount": 1}
OF_ANOTHER = {"operator": 403, "admin": 200}
"""Of a key that is another operator's: whoever sees it may not change it, and the admin may."""
ROUTES = {
    ("GET", "/healthz"): Route(),
    ("GET", "/readyz"): Route(),
    ("GET", "/api/v1/deployment"): Route(),
    ("GET", "/api/v1/log/checkpoint"): Route(404),
    ("GET", "/api/v1/log/consistency"): Route(422),
    ("POST", PAYMENTS): Route(201, {"amount": 1}),
    ("POST", SMART): Route(200, {"amount_usd": 1}),
    ("GET", PAYMENTS): Route(),
    ("GET", PAYMENTS + "/export"): Route(),
    ("GET", PAYMENTS + "/{payment_id}"): Route(),
    ("GET", PAYMENTS + "/{payment_id}/explanation"): Route(),
    ("POST", PAYMENTS + "/{payment_id}/capture"): Route(),
    ("POST", PAYMENTS + "/{payment_id}/void"): Route(),
    ("POST", "/api/v1/ai/payments/{payment_id}/settlement"): Route(409, {"unknown": True}),
    ("POST", "/api/v1/ai/payments/{payment_id}/settlement/accept"): Route(409, {"reason": "a fee"}),
    ("POST", INTENTS): Route(201, {"amount": 1}),
    ("GET", INTENTS): Route(),
    ("GET", INTENTS + "/{intent_id}"): Route(),
    ("GET", INTENTS + "/{intent_id}/events"): Route(),
    ("POST", CONFIRM): Route(200, {"client_secret": "its own", "customer_wallet": ""}),
    ("POST", CAPTURE_INTENT): Route(409),
    ("POST", INTENTS + "/{intent_id}/cancel"): Route(),
    ("POST", CHECK_PAYMENT): Route(200, {"amount": 1}),
    ("GET", "/api/v1/ai/session-keys/list"): Route(),
    ("POST", KEY_STATUS): Route(404, GOOD[KEY_STATUS]),
    ("POST", KEY_REVOKE): Route(404, GOOD[KEY_REVOKE]),
    ("GET", APPROVALS): Route(),
    ("GET", APPROVALS + "/{approval_id}"): Route(),
    ("POST", APPROVALS + "/{approval_id}/grant"): Route(),
    ("POST", APPROVALS + "/{approval_id}/deny"): Route(200, {"reason": "no"}),
    ("POST", "/api/v1/workspaces"): Route(409, {"id": "acme", "name": "Acme"}),
    ("POST", "/api/v1/agents"): Route(201, {"agent_id": "bot"}),
    ("GET", "/api/v1/agents"): Route(),
    ("POST", "/api/v1/agent-keys"): Route(201, {"name": "a key", "agent_id": "bot"}),
    ("GET", "/api/v1/agent-keys"): Route(),
    ("POST", "/api/v1/agent-keys/{agent_key_id}/revoke"): Route(),
    ("POST", "/api/v1/api-keys"): Route(201, {"name": "one more"}),
    ("GET", "/api/v1/api-keys"): Route(),
    ("POST", "/api/v1/api-keys/{key_id}/rotate"): Route(others=OF_ANOTHER),
    ("POST", "/api/v1/api-keys/{key_id}/revoke"): Route(others=OF_ANOTHER),
    ("GET", "/api/v1/analytics/agents"): Route(),
    ("GET", "/api/v1/audit"): Route(),
    ("GET", "/api/v1/audit/export"): Route(),
    ("POST", "/api/v1/log/anchor"): Route(),
    ("POST", "/api/v1/evidence/verify"): Route(200, {"evidence": "{}"}),
    ("POST", "/api/v1/chain/resume"): Route(409),
    ("POST", "/api/v1/reconciliation"): Route(),
    ("GET", "/api/v1/reconciliation"): Route(),
    ("GET", "/metrics"): Route(),
    ("GET", "/api/v1/budgets"): Route(),
    ("GET", EVENTS): Route(422, headers={"Last-Event-ID": "999999999"}),  # else it would not end
    ("POST", WEBHOOKS): Route(201, GOOD[WEBHOOKS]),
    ("GET", WEBHOOKS): Route(),
    ("PATCH", WEBHOOKS + "/{webhook_id}"): Route(200, {"active": True}),
    ("DELETE", WEBHOOKS + "/{webhook_id}"): Route(),
    ("POST", WEBHOOKS + "/{webhook_id}/rotate-secret"): Route(),
    ("POST", WEBHOOKS + "/{webhook_id}/test"): Route(200, GOOD[TRY_WEBHOOK]),
    ("GET", WEBHOOKS + "/{webhook_id}/logs"): Route(),
    ("POST", WEBHOOKS + "/{webhook_id}/replay"): Route(200, GOOD[REPLAY]),
}
for budget in (WORKSPACE_BUDGET, AGENT_BUDGET):
    ROUTES |= {
        ("PUT", budget): Route(200, GENEROUS),
        ("GET", budget): Route(),
        ("DELETE", budget): Route(),
    }
for root in (SESSIONS, "/api/v1/sessions"):
    ROUTES |= {
        ("POST", root): Route(201, {"agent_id": "bot", "user_wallet": "wallet"}),
        ("GET", root): Route(),
        ("GET", root + "/{session_id}"): Route(),
        ("POST", root + "/{session_id}/children"): Route(
            201, {"agent_id": "bot", "duration_hours": 1}
        ),
        ("POST", root + "/{session_id}/consent"): Route(409, SIGNATURE),
        ("POST", root + "/{session_id}/restrict"): Route(200, {"restrictions": []}),
        ("POST", root + "/{session_id}/pause"): Route(),
        ("POST", root + "/{session_id}/resume"): Route(),
        ("POST", root + "/{session_id}/revoke"): Route(),
        ("POST", root + "/revoke-many"): Route(409, {"filter": {}, "selection": "00" * 32}),
        ("GET", root + "/{session_id}/evidence"): Route(409),
        ("POST", root + "/{session_id}/x402"): Route(422, NO_OFFER),
        ("POST", root + "/{session_id}/execute"): Route(201, TRANSFER),
        ("POST", root + "/{session_id}/simulate"): Route(200, {"amount": 1}),
        ("POST", root + "/{session_id}/backtest"): Route(200, {}),
    }

ABSENT = {
    "session_id": "sess_" + "0" * 26,
    "payment_id": "pay_" + "0" * 26 + "_0",
    "intent_id": "pi_" + "0" * 26,
    "approval_id": "apr_" + "0" * 26 + "_0",
    "agent_id": "nobody",
    "webhook_id": "wh_" + "0" * 26,
    "key_id": "key_" + "0" * 26,
    "agent_key_id": "ak_" + "0" * 26,
}
