"""A receiver takes what the server signed, and nothing else."""

import json

import pytest
from standardwebhooks.webhooks import Webhook

from engine.webhooks.signing import headers, secret_text
from tallystick import WebhookNotVerified, verify_webhook

NOW_S = 1_800_000_000
SECRETS = bytes(range(32)), bytes(range(1, 33))
NEW, OLD = map(secret_text, SECRETS)
BODY = json.dumps({"id": "evt_1", "event": "payment.created", "data": {"memo": "ü"}}).encode()
SENT = headers("evt_1", BODY, SECRETS, at_s=NOW_S)  # as for a day after a rotation


def refusal(sent: dict[str, str], body: bytes = BODY, secret: str = NEW, at_s: int = NOW_S) -> str:
    with pytest.raises(WebhookNotVerified) as refused:
        verify_webhook(secret, sent, body, now_s=at_s)
    return refused.value.code


def test_what_was_signed_is_read_with_either_secret_and_headers_in_any_case() -> None:
    for secret in (NEW, OLD, [secret_text(bytes(32)), OLD]):
        assert verify_webhook(secret, SENT, BODY, now_s=NOW_S)["id"] == "evt_1"
    assert verify_webhook(NEW, {k.upper(): v for k, v in SENT.items()}, BODY, now_s=NOW_S)


def test_what_another_library_signed_is_read() -> None:
    from datetime import UTC, datetime

    signed = Webhook(NEW).sign("evt_1", datetime.fromtimestamp(NOW_S, UTC), BODY.decode())
    sent = {"webhook-id": "evt_1", "webhook-timestamp": str(NOW_S), "webhook-signature": signed}
    assert verify_webhook(NEW, sent, BODY, now_s=NOW_S)["event"] == "payment.created"


def test_whatever_was_changed_is_refused() -> None:
    assert refusal(SENT, secret=secret_text(bytes(32))) == "webhook_signature_invalid"
    for at in range(len(BODY)):
        changed = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
        assert refusal(SENT, changed) == "webhook_signature_invalid"
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        less = {key: value for key, value in SENT.items() if key != name}
        assert refusal(less) == "webhook_signature_invalid"
        for value in ("", "x", "v1,", "\u0661", "1" * 5000, "0" + SENT[name]):
            refusal(SENT | {name: value})


def test_what_is_old_or_from_the_future_is_refused() -> None:
    assert verify_webhook(NEW, SENT, BODY, now_s=NOW_S + 300)
    for off in (-301, 301):
        assert refusal(SENT, at_s=NOW_S + off) == "webhook_timestamp_too_old"
    assert refusal(SENT | {"webhook-timestamp": str(NOW_S + 1)}) == "webhook_signature_invalid"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "secret", NEW.removeprefix("whsec_")])
def test_a_secret_that_is_none_is_said_to_be_none(secret: str) -> None:
    with pytest.raises(ValueError, match="secret: must be whsec_"):
        verify_webhook(secret, SENT, BODY, now_s=NOW_S)
