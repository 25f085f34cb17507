"""Request bodies for every route that takes one: a good one, and what can be wrong with any."""

import gzip
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.rest.served import APPROVALS, PAYMENTS, SESSIONS, SMART

SIMULATE = SESSIONS + "/{session_id}/simulate"
BACKTEST = SESSIONS + "/{session_id}/backtest"
CONSENT = SESSIONS + "/{session_id}/consent"
CHILDREN = SESSIONS + "/{session_id}/children"
RESTRICT = SESSIONS + "/{session_id}/restrict"
REVOKE_MANY = SESSIONS + "/revoke-many"
CAPTURE = PAYMENTS + "/{payment_id}/capture"
EMBEDDED = "eip155:131277322940537"
"""The embedded chain, whose id is eth-tester's."""
EXECUTE = SESSIONS + "/{session_id}/execute"
X402 = SESSIONS + "/{session_id}/x402"
SETTLEMENT = "/api/v1/ai/payments/{payment_id}/settlement"
"""Takes exactly one of its fields; `test_x402.py` tries it."""
ACCEPT = SETTLEMENT + "/accept"
EVIDENCE = "/api/v1/evidence/verify"
"""Takes any text: what is no evidence is not refused, it does not verify."""
DENY = APPROVALS + "/{approval_id}/deny"

INTENTS = "/api/v1/payment-intents"
CONFIRM = INTENTS + "/{intent_id}/confirm"
CAPTURE_INTENT = INTENTS + "/{intent_id}/capture"

KEYS = "/api/v1/ai/session-keys"
CHECK_PAYMENT = KEYS + "/{session_id}/check-payment"
KEY_STATUS = KEYS + "/status"
KEY_REVOKE = KEYS + "/revoke"
WEBHOOKS = "/api/v1/webhooks"
TRY_WEBHOOK = WEBHOOKS + "/{webhook_id}/test"
REPLAY = WEBHOOKS + "/{webhook_id}/replay"

# A good request for every route that takes a body; text is where text may be.
GOOD: dict[str, dict[str, Any]] = {
    SESSIONS: {
        "agent_id": "bot",
        "agent_name": "Bot",
        "user_wallet": "wallet",
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "duration_hours": 1,
        "approvals_required": 1,
        "mint_pkp": False,
        "await_consent": False,
        "type": "agent",
        "label": "daily",
        "metadata": {"a": 1},
    },
    CHILDREN: {
        "agent_id": "bot",
        "agent_name": "Bot",
        "user_wallet": "wallet",
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "duration_hours": 1,
        "approvals_required": 1,
        "mint_pkp": False,
        "await_consent": False,
        "type": "agent",
        "label": "daily",
        "metadata": {"a": 1},
    },
    REVOKE_MANY: {
        "filter": {"status": "active", "type": "agent", "agent_id": "bot", "label": "daily"},
        "preview": False,
        "selection": "00" * 32,
    },
    RESTRICT: {"restrictions": ["never merchant casino"]},
    CONSENT: {"consent": "eip712", "owner_signature": "0x" + "11" * 65},
    SMART: {
        "amount_usd": 1,
        "session_token": "",
        "agent_id": "session",
        "user_wallet": "",
        "merchant_id": "books",
        "token": "USDC",
        "chain": "eip155:1",
        "description": "Paper",
        "metadata": {"a": 1},
        "product_details": {"b": 2},
        "auto_detect_gasless": True,
        "instant_settlement": False,
        "enable_escrow": False,
    },
    PAYMENTS: {
        "amount": 1,
        "currency": "USD",
        "token": "USDC",
        "chain": "eip155:1",
        "merchant_id": "books",
        "recipient_wallet": "books",
        "customer_email": "buyer@example.org",
        "redirect_url": "https://shop.example/done",
        "capture_method": "manual",
        "description": "Paper",
        "metadata": {"a": 1},
    },
    CAPTURE: {"amount": 1},
    INTENTS: {
        "amount": 1,
        "currency": "USD",
        "token": "USDC",
        "chain": "eip155:1",
        "merchant_id": "books",
        "description": "Paper",
        "metadata": {"a": 1},
        "capture_method": "manual",
        "agent_id": "bot",
        "agent_name": "Bot",
        "expires_in_seconds": 60,
    },
    CONFIRM: {
        "client_secret": "pi_",
        "customer_wallet": "",
        "payment_type": "direct",
        "auto_gasless": False,
        "metadata": {"a": 1},
        "session_token": "",
    },
    CAPTURE_INTENT: {"amount": 1},
    CHECK_PAYMENT: {"amount": 1, "merchant_id": "books"},
    KEY_STATUS: {"session_key_id": "sess_" + "0" * 26},
    KEY_REVOKE: {"session_key_id": "sess_" + "0" * 26},
    DENY: {"reason": "not this one"},
    BACKTEST: {
        "limits": {"max_per_day": 5},
        "allowed_merchants": ["books"],
        "allowed_tokens": ["USDC"],
        "allowed_chains": ["eip155:1"],
        "permissions": ["pay"],
        "conditions": ["never merchant casino"],
        "restrictions": ["at most 2 payments per hour"],
    },
    EXECUTE: {
        "to": "0x" + "22" * 20,
        "amount": 1,
        "token": "USDC",
        "chain": EMBEDDED,
        "memo": "Paper",
    },
    X402: {
        "payment_required": {
            "x402Version": 2,
            "accepts": [
                {
                    "scheme": "exact",
                    "network": "eip155:1",
                    "asset": "0x" + "11" * 20,
                    "amount": "1",
                    "payTo": "0x" + "22" * 20,
                    "maxTimeoutSeconds": 60,
                }
            ],
        },
        "resource": "https://shop.example/book",
        "method": "GET",
        "body_sha256": "00" * 32,
        "max_amount": 1,
        "metadata": {"a": 1},
    },
    WEBHOOKS: {
        "url": "https://localhost/hooks",  # which is refused when it is connected to
        "events": ["approval.requested"],
        "description": "Chat",
    },
    TRY_WEBHOOK: {"event": "approval.requested"},
    REPLAY: {"since": "2026-01-31T09:00:00Z"},
    EVIDENCE: {"evidence": "{}"},
    ACCEPT: {"reason": "a fee"},
    "/api/v1/agents": {"agent_id": "bot", "name": "Bot"},
    "/api/v1/workspaces": {"id": "acme", "name": "Acme"},
    "/api/v1/agent-keys": {
        "name": "crawler",
        "agent_id": "bot",
        "agent_name": "Bot",
        "scopes": ["create_payments"],
        "rate_limit_per_hour": 10,
        "ip_allowlist": ["192.0.2.0/24"],
        "expires_in_seconds": 60,
        "metadata": {"a": 1},
    },
    "/api/v1/api-keys": {"name": "Ada", "mode": "test", "workspace_id": "default"},
}
GOOD[SIMULATE] = GOOD[PAYMENTS]
ROUTES = tuple(GOOD)
MAY_BE_EMPTY = (CAPTURE, CAPTURE_INTENT, DENY, BACKTEST)

EVERY_TYPE: tuple[Any, ...] = (
    None,
    True,
    1,
    1.5,
    "",
    "text",
    [],
    ["text"],
    [[]],
    [None],
    {},
    {"a": 1},
)

ASSIGNED = (
    "unknown",
    "id",
    "workspace_id",
    "tenant_id",
    "role",
    "admin",
    "state",
    "status",
    "is_active",
    "consent",
    "created_at",
    "expires_at",
    "remaining_today",
    "session_key",
    "pkp_address",
    "token_priced",
    "number",
    "rate_limits",
    "split_recipients",
    "Amount",
    "__proto__",
    "",
)

ESCAPES = (
    r"\ud800",
    r"\udc00",
    r"a\udfff",
    r"\ude00\ud83d",
    r"\u0000",
    r"a\u0000",
    r"\u001b[31m",
    r"a\nb",
    r"\u007f",
)
"""In JSON text: what nobody could show."""

SURROGATES = (r"\ud800", r"\udc00", r"\ud800a")

GOOD_BYTES = b'{"amount":1}'
NOT_JSON = {
    "half an object": b'{"amount":',
    "two objects": b'{"amount":1}{"amount":1}',
    "trailing comma": b'{"amount":1,}',
    "single quotes": b"{'amount':1}",
    "comment": b'{"amount":1}//',
    "bare word": b"amount",
    "control character in text": b'{"amount":1,"description":"a\nb"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD_BYTES,
    "UTF-16": GOOD_BYTES.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD_BYTES.decode().encode("utf-16-le"),
    "UTF-32": GOOD_BYTES.decode().encode("utf-32"),
    "Latin-1": '{"amount":1,"description":"é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"amount":1,"description":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"amount":1,"description":"\xed\xa0\x80"}',
    "gzip": gzip.compress(GOOD_BYTES),
    "NUL": b"\0",
    "space": b" ",
    "deep arrays": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "a duplicate key": b'{"amount":1,"amount":2}',
    "a duplicate key of texts": b'{"amount":"1","amount" : "2"}',
    "the same key twice": b'{"amount":1,"amount":1}',
    "a duplicate key by escape": rb'{"amount":1,"\u0061mount":2}',
    "a duplicate key deep inside": b'{"amount":1,"metadata":{"a":[{"b":1,"b":2}]}}',
}

TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "json",
    "",
)


@st.composite
def nearly_good(draw: st.DrawFn, cases: st.SearchStrategy[Any], good: dict[str, Any]) -> Any:
    """Made-up requests with the good body, but for up to two fields, which stay made up;
    one at least is good.

    Hypothesis draws from the constants of whatever modules are loaded, so that even with a fixed
    seed it depends on the other tests of a run whether a body that is all made up is ever good.
    """
    case = draw(cases)
    made = case.body if isinstance(case.body, dict) else {}
    at_most = min(2, len(made) - 1)
    kept = draw(st.sets(st.sampled_from(sorted(made)), max_size=at_most)) if made else ()
    case.body = good | {name: made[name] for name in kept}
    return case


def texts(value: Any, field: str | None = None) -> Iterator[tuple[str, Any]]:
    """Every place in a body where there is text: the field, and the body with a marker there."""
    if isinstance(value, str):
        yield field or "", "\N{BULLET}"
    elif isinstance(value, dict):
        for key, item in value.items():
            for found, changed in texts(item, field or key):
                yield found, value | {key: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for found, changed in texts(item, field):
                yield found, [*value[:index], changed, *value[index + 1 :]]
