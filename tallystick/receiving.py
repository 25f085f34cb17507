"""What a receiver of webhooks does first: make sure that a delivery is the server's.

event = verify_webhook("whsec_…", request.headers, await request.body())
"""

import base64
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.clock import system_clock
from engine.webhooks.signing import SECRET_PREFIX, signature

_TIME = re.compile("[1-9][0-9]{0,11}")
TOLERANCE_S = 300
"""How far the time of a delivery may be from now; who replays an older one is refused."""


class WebhookNotVerified(Exception):
    """It must not be acted on; answer 401.

    `code`: `webhook_signature_invalid` or `webhook_timestamp_too_old`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def verify_webhook(
    secret: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: int | None = None,
) -> dict[str, Any]:
    """The event of a delivery: its body, once that is known to be the server's.

    It goes by Standard Webhooks 1.0. `secret` is the webhook's `whsec_…`, or several of which one
    has signed; `headers` in any case; `body` the bytes as they came; `now_s` unix seconds, for
    tests. A delivery comes at least once: whoever must not act twice keeps the ids that were seen.

    Raises:
        WebhookNotVerified: it is not signed by the secret, or too old.
        ValueError: a secret is none.
    """
    # 1. The three headers. 2. A time near now. 3. One signature by one secret over id, time and
    # body. 4. Only then the body is read.
    sent = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, stamp, given = (
            sent[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        raise _unsigned(f"there is no header {error.args[0]}") from None
    if not _TIME.fullmatch(stamp):
        raise _unsigned("webhook-timestamp is no time")
    now_s = system_clock() // 1000 if now_s is None else now_s
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise WebhookNotVerified(
            "webhook_timestamp_too_old", f"it was sent more than {TOLERANCE_S} s from now"
        )
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [signature(_key(each), event_id, int(stamp), body).encode() for each in secrets]
    offered = [each.encode() for each in given.split(" ")]
    if not any(hmac.compare_digest(one, other) for one in expected for other in offered):
        raise _unsigned("no signature is by this secret")
    event: dict[str, Any] = json.loads(body)
    return event


def _key(secret: str) -> bytes:
    prefix, text = secret[: len(SECRET_PREFIX)], secret[len(SECRET_PREFIX) :]
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if prefix != SECRET_PREFIX or not key:
        raise ValueError(f"secret: must be {SECRET_PREFIX}… as it was shown")
    return key


def _unsigned(message: str) -> WebhookNotVerified:
    return WebhookNotVerified("webhook_signature_invalid", message)
