"""What proves to a receiver that a delivery is ours, and was not changed. Pure.

Two signatures stand beside each other: that of Standard Webhooks 1.0, over id, time and body, and
the one that clients of the agent-session API know, over the body alone. The first is the better
one: who replays a delivery cannot give it another time.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 (the public prefix of a secret)
SECRET_BYTES = 32


def secret_text(secret: bytes) -> str:
    """A secret as its receiver is shown it: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, event_id: str, at_s: int, body: bytes) -> str:
    """The signature of Standard Webhooks: `v1,` and base64 of an HMAC-SHA-256."""
    signed = f"{event_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def body_signature(secret: bytes, body: bytes) -> str:
    """HMAC-SHA-256 of the body under the text of the secret: bare hexadecimal digits."""
    return hmac.digest(secret_text(secret).encode(), body, hashlib.sha256).hex()


def headers(
    event_id: str,
    body: bytes,
    secrets: Sequence[bytes],
    *,
    at_s: int,
    attempts: int = 0,
    first_s: int | None = None,
) -> dict[str, str]:
    """The headers of one attempt at `at_s`, in unix seconds.

    The first of `secrets` is in force, others were until lately. After `attempts` that failed, the
    first of them at `first_s`, the headers say so.
    """
    told = {
        "Content-Type": "application/json",
        "User-Agent": "Tallystick-Webhooks/1",
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(signature(each, event_id, at_s, body) for each in secrets),
        "X-ZendFi-Signature": body_signature(secrets[0], body),
        "X-ZendFi-Timestamp": str(at_s),
        "X-ZendFi-Event-ID": event_id,
    }
    if attempts:
        told["X-ZendFi-Retry-Count"] = str(attempts)
        told["X-ZendFi-Original-Timestamp"] = str(at_s if first_s is None else first_s)
    return told
