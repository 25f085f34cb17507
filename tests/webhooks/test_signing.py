"""Receivers believe what we sent and nothing else: the official library, and Node."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from engine.clock import system_clock
from engine.webhooks.outbox import event_body
from engine.webhooks.signing import SECRET_BYTES, headers, secret_text

NODE = Path(sys.executable).with_name("node")
SECRET, ANOTHER = bytes(range(SECRET_BYTES)), bytes(range(1, SECRET_BYTES + 1))
EVENT_ID = "evt_sess_01jd0000000000000000000000_7"
DATA = {"label": "Bücher ≤ 20 $", "amount_micro_usd": 12_500_000}
BODY = event_body(EVENT_ID, "payment.confirmed", 1_800_000_000_123, "default", DATA, 7)
MINUTE_S = 60


def signed(secrets: list[bytes], *, ago_s: int = 0, **how: Any) -> dict[str, str]:
    return headers(EVENT_ID, BODY, secrets, at_s=system_clock() // 1000 - ago_s, **how)


def believed(body: bytes, told: dict[str, str], secret: bytes = SECRET) -> bool:
    try:
        Webhook(secret_text(secret)).verify(body, told)
    except (WebhookVerificationError, UnicodeDecodeError):
        return False
    return True


def test_a_secret_has_the_form_and_the_length_of_the_standard() -> None:
    assert secret_text(SECRET).startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret_text(SECRET).removeprefix("whsec_"))) <= 64


def test_the_body_is_what_clients_of_both_kinds_read() -> None:
    assert json.loads(BODY) == {
        "id": EVENT_ID,
        "event": "payment.confirmed",
        "timestamp": "2027-01-15T08:00:00.123Z",
        "api_version": "2025-01",
        "merchant_id": "default",
        "sequence": 7,
        "data": DATA,
    }


def test_the_official_library_believes_it_and_no_byte_of_it_can_be_another() -> None:
    told = signed([SECRET])
    assert Webhook(secret_text(SECRET)).verify(BODY, told) == json.loads(BODY)
    for at in range(len(BODY)):
        assert not believed(BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :], told)
    for name in ("webhook-id", "webhook-timestamp"):
        for at in range(len(told[name])):
            text = told[name]
            changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
            assert not believed(BODY, told | {name: changed})
    assert not believed(BODY, told, ANOTHER)


@pytest.mark.parametrize("ago_s", [6 * MINUTE_S, -6 * MINUTE_S])
def test_an_old_delivery_cannot_be_sent_again_under_a_new_time(ago_s: int) -> None:
    old, new = signed([SECRET], ago_s=ago_s), signed([SECRET])
    assert not believed(BODY, old)
    assert not believed(BODY, old | {"webhook-timestamp": new["webhook-timestamp"]})


def test_while_a_secret_is_rotated_both_believe_it() -> None:
    told = signed([ANOTHER, SECRET])
    assert believed(BODY, told)
    assert believed(BODY, told, ANOTHER)
    assert not believed(BODY, signed([ANOTHER]))


def test_a_retry_says_so() -> None:
    again = signed([SECRET], attempts=3, first_s=1_800_000_000)
    assert again["X-ZendFi-Retry-Count"] == "3"
    assert again["X-ZendFi-Original-Timestamp"] == "1800000000"
    assert "X-ZendFi-Retry-Count" not in signed([SECRET])


def test_node_believes_the_same() -> None:
    good, both, old = signed([SECRET]), signed([ANOTHER, SECRET]), signed([SECRET], ago_s=400)
    cases = [
        (good, BODY, SECRET, [True, True]),
        (good, BODY + b" ", SECRET, [False, False]),
        (good, BODY, ANOTHER, [False, False]),
        (both, BODY, SECRET, [True, False]),
        (both, BODY, ANOTHER, [True, True]),
        (old, BODY, SECRET, [False, True]),
        (old | {"webhook-timestamp": good["webhook-timestamp"]}, BODY, SECRET, [False, True]),
    ]
    asked = [
        {
            "secret": secret_text(secret),
            "headers": told,
            "body": base64.b64encode(body).decode(),
            "now": system_clock() // 1000,
        }
        for told, body, secret, _ in cases
    ]
    done = subprocess.run(
        [NODE, Path(__file__).with_name("verify.mjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [expected for *_, expected in cases]
