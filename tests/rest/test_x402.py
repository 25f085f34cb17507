"""Paying what a 402 asks for, over HTTP."""

import base64
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tallystick.cli import app
from tests.ledger.paying import CENT, SHOP, URL, offer, required
from tests.rest.served import NO_LIMITS, SESSIONS, Served, refused

TX_HASH = "0x" + "7a" * 32


def ask(api: Served, session: dict[str, Any], *offers: Any, **how: Any) -> Any:
    """As an agent does, with its token."""
    headers = how.pop("headers", None)
    body = {"payment_required": required(*offers), "resource": URL} | how
    path = f"{SESSIONS}/{session['id']}/x402"
    return api.call("POST", path, body, token=session["session_token"], headers=headers)


def test_a_402_is_paid_and_its_settlement_is_reported(tenant: Served) -> None:
    session, cheap = tenant.session(), offer(tenant.world)
    key = {"Idempotency-Key": "order 7"}
    first = ask(tenant, session, cheap, headers=key)
    assert first.status_code == 200
    paid = first.json()
    assert (paid["state"], paid["expires_at"], paid["amount_usd"]) == ("held", None, 0.01)
    assert (paid["merchant_id"], paid["terms"]["pay_to"]) == ("api.shop.test", SHOP)
    assert json.loads(base64.b64decode(paid["payment_signature"])) == paid["payment"]
    header = base64.b64encode(json.dumps(required(cheap)).encode()).decode()
    again = ask(tenant, session, payment_required=header, headers=key)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["payment_signature"] == paid["payment_signature"]
    path = f"/api/v1/ai/payments/{paid['id']}/settlement"
    token = session["session_token"]
    assert tenant.call("POST", path, {"unknown": True}, token=token).json()["state"] == "unknown"
    response = {"success": True, "transaction": TX_HASH, "network": cheap["network"]}
    told = tenant.call("POST", path, {"payment_response": response}, token=token).json()
    assert (told["state"], told["tx_hash"]) == ("submitted", TX_HASH)
    for shown in (
        tenant.get(f"/api/v1/payments/{paid['id']}").json(),
        tenant.get("/api/v1/payments").json()["data"][0],
    ):
        assert shown["settlement"] == told
        assert "transaction_signature" not in shown  # what somebody reported is not known
    for command, said in (("get", "submitted"), ("list", "HELD, submitted")):
        arguments = ["payments", command, *([paid["id"]] if command == "get" else [])]
        done = CliRunner().invoke(app, [*arguments, "--url", tenant.url, "--api-key", tenant.key])
        assert (done.exit_code, said in done.output) == (0, True), done.output
    for end in ("void", "capture"):
        answer = tenant.post(f"/api/v1/payments/{paid['id']}/{end}")
        refused(answer, 409, "payment_signed")
    refused(tenant.post(f"{path}/accept", {}), 422, "missing_required_field", "reason")
    arguments = ["payments", "accept", paid["id"], "--reason", "I say so"]
    done = CliRunner().invoke(app, [*arguments, "--url", tenant.url, "--api-key", tenant.key])
    assert getattr(done.exception, "code", done.output) == "settlement_not_contradicted"


def test_a_replay_tells_what_the_decision_left_and_its_headers_what_is_left_now(
    tenant: Served,
) -> None:
    session = tenant.session(limits=NO_LIMITS | {"max_per_day": 100})
    first = ask(tenant, session, offer(tenant.world))
    tenant.pay(session["session_token"], 10)
    again = ask(tenant, session, offer(tenant.world))
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.json(), again.json()["remaining_today"]) == (first.json(), 99.99)
    header = "Tallystick-Remaining-Today"
    assert (first.headers[header], again.headers[header]) == ("99.99", "89.99")


def test_a_transaction_that_is_named_beside_a_failure_is_no_reason_to_sign_again(
    tenant: Served,
) -> None:
    """A facilitator that waits says so: `settlement_pending`, and its transaction."""
    session, cheap = tenant.session(), offer(tenant.world)
    paid = ask(tenant, session, cheap).json()
    path = f"/api/v1/ai/payments/{paid['id']}/settlement"
    waits = {"success": False, "errorReason": "settlement_pending", "transaction": TX_HASH}
    for response, state in ((waits, "unknown"), (waits | {"success": True}, "submitted")):
        again = ask(tenant, session, cheap).json()
        assert (again["id"], again["payment_signature"]) == (paid["id"], paid["payment_signature"])
        body = {"payment_response": response}
        for _ in range(2):
            told = tenant.call("POST", path, body, token=session["session_token"]).json()
            assert (told["state"], told["tx_hash"]) == (state, TX_HASH)
            body = {"payment_response": waits}  # takes no success back
    assert ask(tenant, session, cheap).json()["id"] != paid["id"]


def test_what_is_denied_changed_or_no_offer_is_said(tenant: Served) -> None:
    session = tenant.session(limits={"max_per_transaction": "0.01"})
    denied = ask(tenant, session, offer(tenant.world, 2 * CENT))
    assert (denied.status_code, denied.json()["code"]) == (402, "LIMIT_EXCEEDED")
    key = {"Idempotency-Key": "k"}
    assert ask(tenant, session, offer(tenant.world), headers=key).status_code == 200
    other = ask(tenant, session, offer(tenant.world, payTo="0x" + "0c" * 20), headers=key)
    refused(other, 409, "idempotency_key_reused", "terms.pay_to")
    other = ask(tenant, session, offer(tenant.world), headers=key, metadata={"a": 1})
    refused(other, 409, "idempotency_key_reused", "metadata")
    dear = ask(tenant, session, offer(tenant.world), max_amount="0.009999")
    refused(dear, 422, "no_usable_offer", "payment_required")
    assert dear.json()["message"] == (
        "payment_required: offer 0: it costs $0.01, more than $0.009999"
    )
    none = ask(tenant, session, offer(tenant.world, scheme="upto"))
    refused(none, 422, "no_usable_offer", "payment_required")
    assert none.json()["details"]["reasons"][0]["position"] == 0


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"payment_required": "not base64"}, "payment_required"),
        ({"payment_required": []}, "payment_required"),
        ({"payment_required": {"x402Version": 1, "accepts": []}}, "payment_required"),
        ({"payment_required": {"x402Version": 2, "accepts": {}}}, "payment_required"),
        ({"resource": "/report"}, "resource"),
        ({"method": "get"}, "method"),
        ({"method": "TRANSFER"}, "method"),
        ({"body_sha256": "AB" * 32}, "body_sha256"),
    ],
)
def test_what_is_no_402_is_named(api: Served, how: dict[str, Any], field: str) -> None:
    refused(ask(api, api.session(), **how), 422, "invalid_parameter", field)


def test_a_token_may_call_its_session_self(tenant: Served) -> None:
    session = tenant.session()
    body = {"payment_required": required(offer(tenant.world)), "resource": URL, "max_amount": 0.01}
    path = f"{SESSIONS}/self/x402"
    paid = tenant.call("POST", path, body, token=session["session_token"])
    assert (paid.status_code, paid.json()["session_id"]) == (200, session["id"])
    refused(tenant.post(path, body), 404, "session_not_found")


def test_a_payment_that_is_not_signed_has_no_settlement(api: Served) -> None:
    session = api.session()
    held = api.hold(session["session_token"])
    path = f"/api/v1/ai/payments/{held['id']}/settlement"
    refused(api.post(path, {"unknown": True}), 409, "payment_not_signed")
    assert "settlement" not in api.get(f"/api/v1/payments/{held['id']}").json()
