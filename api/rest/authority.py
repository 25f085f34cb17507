"""Who may call what: the one table of all routes. A route without a row stops the application from
being made.

A row says whose route it is, and with which scopes of its key an agent's software may call it, too:

    anybody     no key is looked at
    admin       the admin's key
    operator    an operator's key; an agent's key with one of the scopes sees its agent's part
    session     a session's token; beside it an agent's key needs one of the scopes
    payer       whoever pays for it by x402 (`api/gate`); no key is looked at
    party       an operator's key or a session's token; an agent's key as for `session`, and `alone`
                without a token where it only looks
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from fastapi.routing import APIRoute

from api.rest.methods import each_route
from engine.workspaces.agent_keys import Scope

Who = Literal["anybody", "admin", "operator", "session", "payer", "party"]
Scopes = frozenset[Scope]

NEVER: Scopes = frozenset()
READ: Scopes = frozenset(("full", "read_only", "create_payments"))
"""Whoever may pay may look at what it paid."""
PAY: Scopes = frozenset(("full", "create_payments"))


class Row(NamedTuple):
    """See the module."""

    who: Who
    scopes: Scopes = NEVER
    alone: bool = False


ANALYSE: Scopes = frozenset(("full", "read_only", "read_analytics"))


_OPERATOR, _ADMIN, _ANYBODY = Row("operator"), Row("admin"), Row("anybody")
_PAYER = Row("payer")
_LOOK, _SPEND = Row("party", READ, alone=True), Row("party", PAY)
_SESSIONS = "/api/v1/ai/sessions"
_INTENTS = "/api/v1/payment-intents"
_SAME = {"/api/v1/sessions": _SESSIONS}
"""The other root of some routes, which has their rows."""

AUTHORITY: Mapping[tuple[str, str], Row] = {
    ("GET", "/"): _ANYBODY,
    ("GET", "/docs"): _ANYBODY,
    ("GET", "/docs/oauth2-redirect"): _ANYBODY,
    ("GET", "/redoc"): _ANYBODY,
    ("GET", "/healthz"): _ANYBODY,
    ("GET", "/readyz"): _ANYBODY,
    ("GET", "/api/v1/deployment"): _ANYBODY,
    ("GET", "/api/v1/log/checkpoint"): _ANYBODY,
    ("GET", "/api/v1/log/consistency"): _ANYBODY,
    ("GET", "/metrics"): _ADMIN,  # anybody, if a setting says so
    ("POST", _SESSIONS): _OPERATOR,
    ("GET", _SESSIONS): _LOOK,
    ("GET", _SESSIONS + "/{session_id}"): _LOOK,
    ("POST", _SESSIONS + "/{session_id}/children"): Row("party"),
    ("POST", _SESSIONS + "/{session_id}/consent"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/restrict"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/pause"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/resume"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/revoke"): _OPERATOR,
    ("POST", _SESSIONS + "/revoke-many"): _OPERATOR,
    ("GET", _SESSIONS + "/{session_id}/evidence"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/simulate"): _LOOK,
    ("POST", _SESSIONS + "/{session_id}/backtest"): _OPERATOR,
    ("POST", _SESSIONS + "/{session_id}/x402"): _SPEND,
    ("POST", _SESSIONS + "/{session_id}/execute"): _SPEND,
    ("POST", "/api/v1/ai/payments/{payment_id}/settlement"): _SPEND,
    ("POST", "/api/v1/ai/payments/{payment_id}/settlement/accept"): _OPERATOR,
    ("POST", "/api/v1/ai/smart-payment"): Row("session", PAY),
    ("POST", "/api/v1/payments"): Row("session", PAY),
    ("GET", "/api/v1/payments"): _LOOK,
    ("GET", "/api/v1/payments/export"): _LOOK,
    ("GET", "/api/v1/payments/{payment_id}"): _LOOK,
    ("GET", "/api/v1/payments/{payment_id}/explanation"): _LOOK,
    ("POST", "/api/v1/payments/{payment_id}/capture"): _SPEND,
    ("POST", "/api/v1/payments/{payment_id}/void"): _SPEND,
    ("POST", _INTENTS): _SPEND,
    ("GET", _INTENTS): _LOOK,
    ("GET", _INTENTS + "/{intent_id}"): _LOOK,
    ("GET", _INTENTS + "/{intent_id}/events"): _LOOK,
    ("POST", _INTENTS + "/{intent_id}/confirm"): Row("session", PAY),
    ("POST", _INTENTS + "/{intent_id}/capture"): _SPEND,
    ("POST", _INTENTS + "/{intent_id}/cancel"): _SPEND,
    ("GET", "/api/v1/ai/session-keys/list"): _LOOK,
    ("POST", "/api/v1/ai/session-keys/status"): _LOOK,
    ("POST", "/api/v1/ai/session-keys/revoke"): _OPERATOR,
    ("POST", "/api/v1/ai/session-keys/{session_id}/check-payment"): _LOOK,
    ("GET", "/api/v1/approvals"): _OPERATOR,
    ("GET", "/api/v1/approvals/{approval_id}"): _LOOK,
    ("POST", "/api/v1/approvals/{approval_id}/grant"): _OPERATOR,
    ("POST", "/api/v1/approvals/{approval_id}/deny"): _OPERATOR,
    ("POST", "/api/v1/workspaces"): _ADMIN,
    ("POST", "/api/v1/agents"): _OPERATOR,
    ("GET", "/api/v1/agents"): _OPERATOR,
    ("POST", "/api/v1/agent-keys"): _OPERATOR,
    ("GET", "/api/v1/agent-keys"): _OPERATOR,
    ("POST", "/api/v1/agent-keys/{agent_key_id}/revoke"): _OPERATOR,
    ("POST", "/api/v1/api-keys"): _ADMIN,
    ("GET", "/api/v1/api-keys"): _OPERATOR,
    ("POST", "/api/v1/api-keys/{key_id}/rotate"): _OPERATOR,
    ("POST", "/api/v1/api-keys/{key_id}/revoke"): _OPERATOR,
    ("GET", "/api/v1/analytics/agents"): Row("operator", ANALYSE, alone=True),
    ("GET", "/api/v1/audit"): _OPERATOR,
    ("GET", "/api/v1/audit/export"): _OPERATOR,
    ("GET", "/api/v1/budgets"): _OPERATOR,
    ("PUT", "/api/v1/budgets/workspace"): _OPERATOR,
    ("GET", "/api/v1/budgets/workspace"): _OPERATOR,
    ("DELETE", "/api/v1/budgets/workspace"): _OPERATOR,
    ("PUT", "/api/v1/agents/{agent_id}/budget"): _OPERATOR,
    ("GET", "/api/v1/agents/{agent_id}/budget"): _OPERATOR,
    ("DELETE", "/api/v1/agents/{agent_id}/budget"): _OPERATOR,
    ("GET", "/api/v1/events"): _OPERATOR,
    ("POST", "/api/v1/webhooks"): _OPERATOR,
    ("GET", "/api/v1/webhooks"): _OPERATOR,
    ("PATCH", "/api/v1/webhooks/{webhook_id}"): _OPERATOR,
    ("DELETE", "/api/v1/webhooks/{webhook_id}"): _OPERATOR,
    ("POST", "/api/v1/webhooks/{webhook_id}/rotate-secret"): _OPERATOR,
    ("POST", "/api/v1/webhooks/{webhook_id}/test"): _OPERATOR,
    ("GET", "/api/v1/webhooks/{webhook_id}/logs"): _OPERATOR,
    ("POST", "/api/v1/webhooks/{webhook_id}/replay"): _OPERATOR,
    ("POST", "/api/v1/log/anchor"): _OPERATOR,
    ("POST", "/api/v1/evidence/verify"): Row("party"),
    ("POST", "/api/v1/reconciliation"): _OPERATOR,
    ("GET", "/api/v1/reconciliation"): _OPERATOR,
    ("POST", "/api/v1/chain/resume"): _ADMIN,
    ("GET", "/v1/store"): _PAYER,
    ("GET", "/v1/store/{key}"): _PAYER,
    ("PUT", "/v1/store/{key}"): _PAYER,
    ("DELETE", "/v1/store/{key}"): _PAYER,
    ("POST", "/v1/store/batch/get"): _PAYER,
    ("POST", "/v1/store/batch/set"): _PAYER,
    ("POST", "/v1/store/batch/delete"): _PAYER,
}
"""Every method and path that is served."""

Endpoint = Callable[..., Any]


def row_of(method: str, path: str) -> Row:
    """The row of a route, whatever name of it this is.

    Raises:
        KeyError: it has none.
    """
    path = re.sub(r":\w+}", "}", path)
    for other, root in _SAME.items():
        if path == other or path.startswith(other + "/"):
            path = root + path.removeprefix(other)
    return AUTHORITY[method, path]


def rows_of(routes: Iterable[Any]) -> dict[Endpoint, Row]:
    """The rows of an application's routes, by the functions that answer them.

    Raises:
        KeyError: a route has no row.
        ValueError: two names of a route have rows that differ.
    """
    rows: dict[Endpoint, Row] = {}
    for found in each_route(routes):
        if not isinstance(getattr(found, "original_route", found), APIRoute):
            continue  # the document itself, and what is mounted
        for method in found.methods:
            row = row_of(method, found.path)
            if rows.setdefault(found.endpoint, row) != row:
                raise ValueError(f"{method} {found.path} has another row under another name")
    return rows
