"""Routes of the agent-session API that have no meaning here, and why: a 501 that says so.

They are no routes of ours: what is looked up here is a path that nothing answers.
docs/compatibility.md has the same reasons.
"""

import re

STATUS = 501
CODE = "not_offered"
SEE = "docs/compatibility.md"

_DEVICE = (
    "session keys are made with their session and kept sealed by the server; no device holds one"
)
_TOP_UP = "limits are in the grant that the owner signed: open another session with higher ones"
_LINK = (
    "a session has its key and its limits from the start; POST /api/v1/ai/sessions/{id}/children "
    "opens one that is bound by another's limits, too"
)
_AUTONOMY = (
    "a session is what lets an agent pay alone, within limits that its owner signs: "
    "POST /api/v1/ai/sessions with await_consent"
)
_SIGNED = "the server signs what the policy allowed; no client sends it a signed transaction"
_SMART = "it names no session that pays: POST /api/v1/ai/smart-payment, or a session's execute"

NOT_OFFERED = (
    ("/ai/session-keys/create", _DEVICE),
    ("/ai/session-keys/device-bound/create", _DEVICE),
    ("/ai/session-keys/device-bound/get-encrypted", _DEVICE),
    ("/ai/session-keys/device-bound/{id}/recover", _DEVICE),
    ("/ai/session-keys/submit-approval", _SIGNED),
    ("/ai/session-keys/{id}/top-up", _TOP_UP),
    ("/ai/session-keys/{id}/submit-top-up", _TOP_UP),
    ("/ai/session-keys/{id}/link-session", _LINK),
    ("/ai/session-keys/{id}/unlink-session", _LINK),
    ("/ai/session-keys/{id}/enable-autonomy", _AUTONOMY),
    ("/ai/session-keys/{id}/revoke-autonomy", _AUTONOMY),
    ("/ai/session-keys/{id}/autonomy-status", _AUTONOMY),
    ("/ai/autonomy/enable", _AUTONOMY),
    ("/ai/autonomy/status/{id}", _AUTONOMY),
    ("/ai/autonomy/revoke", _AUTONOMY),
    ("/ai/autonomy/delegates", _AUTONOMY),
    ("/ai/payments/{id}/submit-signed", _SIGNED),
    ("/payments/{id}/build-transaction", _SIGNED),
    ("/ai/smart-payments", _SMART),
    ("/ai/smart/execute", _SMART),
    ("/ai/smart/simulate", "POST /api/v1/ai/sessions/{id}/simulate tries a payment"),
    ("/ai/smart/submit-signed", _SIGNED),
    ("/ai/smart/batch", "payments are decided one by one, and those that wait together anyway"),
    ("/ai/pricing/ppp-factor", "nothing here changes a price by country"),
    ("/ai/pricing/ppp-factors", "nothing here changes a price by country"),
    ("/ai/pricing/suggest", "nothing here suggests a price"),
    ("/escrows", "nothing here keeps money for others; a hold is a budget that is kept"),
    ("/invoices", "nothing here sends invoices"),
    ("/subscriptions", "nothing here pays again by itself"),
    ("/payment-links", "nothing here has a page to pay on"),
    ("/installment-plans", "nothing here pays again by itself"),
)
"""Paths below `/api/v1`, and all that is below them, whatever the method; and what to say. `{id}`
is any one part."""

_PATTERNS = tuple(
    (re.compile("/api/v1" + path.replace("{id}", "[^/]+") + "(/.*)?"), why)
    for path, why in NOT_OFFERED
)


def not_offered(path: str) -> str | None:
    """Why this path is not answered, if it is one of them."""
    return next((why for pattern, why in _PATTERNS if pattern.fullmatch(path)), None)
