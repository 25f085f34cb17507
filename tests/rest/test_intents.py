"""Payment intents, session keys and what is not offered, as existing clients call them."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.rest.not_offered import NOT_OFFERED
from tests.rest.bodies import INTENTS, KEYS
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, Served, refused

CLIENT_SHAPE = {
    "id", "amount", "currency", "description", "status", "capture_method", "agent_id",
    "payment_id", "created_at", "expires_at",
}  # fmt: skip
COMPATIBILITY = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()


def made(api: Served, amount: Any = 1, **fields: Any) -> dict[str, Any]:
    answer = api.post(INTENTS, {"amount": amount} | fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def confirm(api: Served, intent: dict[str, Any], root: str = INTENTS, **how: Any) -> httpx.Response:
    body = {"client_secret": intent["client_secret"], "customer_wallet": "wallet"}
    body |= how.pop("body", {})
    return api.call("POST", f"{root}/{intent['id']}/confirm", body, **how)


def test_an_intent_is_made_confirmed_and_told_as_clients_expect_it(tenant: Served) -> None:
    session = tenant.session()
    intent = made(tenant, "12.50", description="Paper", agent_id="bot", metadata={"a": 1})
    assert CLIENT_SHAPE | {"client_secret"} <= intent.keys()
    assert (intent["amount"], intent["status"]) == (12.5, "requires_payment")
    # An SDK has an operator's key in the header and the session's token in the body.
    body = {"session_token": session["session_token"], "payment_type": "direct"}
    answer = confirm(tenant, intent, key=tenant.key, body=body)
    paid = answer.json()
    assert (answer.status_code, paid["status"], paid["amount_captured"]) == (200, "succeeded", 12.5)
    assert "client_secret" not in paid
    payment = tenant.get(f"{PAYMENTS}/{paid['payment_id']}").json()
    assert (payment["status"], payment["amount_usd"]) == ("confirmed", 12.5)
    assert (payment["description"], payment["metadata"]) == ("Paper", {"a": 1})
    assert payment["customer_wallet"] == "wallet"
    again = confirm(tenant, intent, token=session["session_token"], body={"payment_type": "direct"})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == paid == tenant.get(f"{INTENTS}/{intent['id']}").json()
    events = tenant.get(f"{INTENTS}/{intent['id']}/events").json()
    assert [each["event_type"] for each in events] == [
        "intent.created", "intent.confirmed", "intent.succeeded",
    ]  # fmt: skip
    assert {each["payment_intent_id"] for each in events} == {intent["id"]}


def test_what_is_manual_is_held_until_it_is_captured(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    intent = made(tenant, 10, capture_method="manual")
    path = f"{INTENTS}/{intent['id']}"
    refused(tenant.post(f"{path}/capture"), 409, "intent_requires_payment")
    assert confirm(tenant, intent, token=token).json()["status"] == "processing"
    refused(tenant.post(f"{path}/cancel"), 409, "intent_processing")
    for amount in (11, None):
        answer = tenant.post(f"{path}/capture", {"amount": amount})
        refused(answer, 422, "invalid_amount", "amount")
    for _ in range(2):
        captured = tenant.call("POST", f"{path}/capture", {"amount": 4}, token=token).json()
        assert (captured["status"], captured["amount_captured"]) == ("succeeded", 4)
    refused(tenant.post(f"{path}/capture", {"amount": 5}), 409, "payment_captured")


def test_a_denial_is_a_402_and_stays_one(tenant: Served) -> None:
    session = tenant.session(limits={"max_per_transaction": 5})
    intent = made(tenant, 6)
    for replayed in (False, True):
        answer = confirm(tenant, intent, token=session["session_token"])
        refused(answer, 402, "LIMIT_EXCEEDED")
        assert ("Idempotent-Replayed" in answer.headers) == replayed
    found = tenant.get(f"{INTENTS}/{intent['id']}").json()
    assert (found["status"], found["code"]) == ("failed", "LIMIT_EXCEEDED")
    assert found["payment_id"] == answer.json()["payment_id"]


def test_what_needs_an_approval_is_processing_until_it_comes(tenant: Served) -> None:
    session = tenant.session(limits={"require_approval_above": 5})
    intent = made(tenant, 6)
    waits = confirm(tenant, intent, token=session["session_token"]).json()
    assert (waits["status"], waits["payment_id"]) == ("processing", None)
    tenant.post(f"/api/v1/approvals/{waits['approval_id']}/grant")
    found = tenant.get(f"{INTENTS}/{intent['id']}").json()
    assert (found["status"], found["approval_id"]) == ("succeeded", waits["approval_id"])


def test_lists_are_filtered_and_go_on_after_any_of_them(tenant: Served) -> None:
    ids = [made(tenant, n + 1)["id"] for n in range(5)][::-1]
    tenant.post(f"{INTENTS}/{ids[0]}/cancel")

    def listed(query: str) -> list[str]:
        return [each["id"] for each in tenant.get(f"{INTENTS}?{query}").json()]

    assert sorted(listed("")) == sorted(ids)
    every = listed("limit=100")
    assert listed("limit=2") + listed("limit=2&offset=2") + listed("offset=4") == every
    assert listed(f"starting_after={every[1]}") == every[2:]
    assert listed("status=canceled") == [ids[0]]
    assert listed("status=requires_payment&limit=1&offset=4") == []
    assert tenant.get(f"{INTENTS}?limit=1").headers["X-Total-Count"] == "5"
    refused(tenant.get(f"{INTENTS}?starting_after=pi_x"), 404, "intent_not_found")
    refused(tenant.get(f"{INTENTS}?limit=101"), 422, "invalid_parameter", "limit")


@pytest.mark.parametrize("root", ["/payment-intents", "/api/v1/ai/intents", "/ai/intents"])
def test_the_other_names_lead_to_the_same(tenant: Served, root: str) -> None:
    http = httpx.Client(base_url=tenant.url, headers={"Authorization": f"Bearer {tenant.key}"})
    token = tenant.session()["session_token"]
    with http:
        intent = http.post(root, json={"amount": 1}).json()
        body = {"client_secret": intent["client_secret"], "customer_wallet": ""}
        body["session_token"] = token
        confirmed = http.post(f"{root}/{intent['id']}/confirm", json=body).json()
        assert confirmed == http.get(f"{root}/{intent['id']}").json()
        assert confirmed["status"] == "succeeded"
        assert http.post(f"{root}/{intent['id']}/cancel").status_code == 409


def test_a_wrong_secret_is_told_nothing(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    intent, other = made(tenant), made(tenant)
    before = tenant.records()
    for secret in (other["client_secret"], intent["id"], "x", tenant.key, token):
        answer = confirm(tenant, intent, token=token, body={"client_secret": secret})
        refused(answer, 403, "invalid_client_secret")
        assert secret == "x" or secret not in answer.text
    for secret in ("", "\u0000", "x" * 201, None, 1, ["x"]):
        answer = confirm(tenant, intent, token=token, body={"client_secret": secret})
        refused(answer, 422, "invalid_parameter", "client_secret")
    assert tenant.records() == before


def test_of_another_workspace_it_does_not_exist(tenant: Served, api: Served) -> None:
    intent = made(tenant)
    foreign = api.session()["session_token"]
    refused(confirm(api, intent, token=foreign), 404, "intent_not_found")
    refused(confirm(tenant, intent, key=tenant.key), 401, "invalid_session_token")
    refused(
        confirm(tenant, intent, key=tenant.key, body={"session_token": foreign}),
        401,
        "invalid_session_token",
    )
    assert tenant.get(f"{INTENTS}/{intent['id']}").json()["status"] == "requires_payment"


def test_a_session_asks_for_itself_alone(tenant: Served) -> None:
    own, other = (tenant.session()["session_token"] for _ in range(2))
    asked = tenant.call("POST", INTENTS, {"amount": 1}, token=own)
    intent = asked.json()
    assert intent["agent_id"] == "bot"
    refused(confirm(tenant, intent, token=other), 404, "intent_not_found")
    assert tenant.call("GET", INTENTS, token=other).json() == []
    assert confirm(tenant, intent, token=own).json()["status"] == "succeeded"
    for_another = {"amount": 1, "agent_id": "shopper"}
    refused(tenant.call("POST", INTENTS, for_another, token=own), 403, "intent_of_another_agent")


def test_what_a_session_key_affords_is_told_with_all_that_bounds_such_a_payment(
    tenant: Served,
) -> None:
    limits = NO_LIMITS | {"max_per_day": 100}
    session = tenant.session(
        limits=limits,
        allowed_merchants=["books", "data"],
        conditions=[
            "at most 3 payments per day",
            "merchant books at most 20 USD per transaction",
            f"token {tenant.world.request(1).token} at most 50 USD per transaction",
        ],
    )

    def check(**body: Any) -> tuple[bool, Any, Any]:
        found = tenant.post(f"{KEYS}/{session['id']}/check-payment", body).json()
        return found["allowed"], found["effective_limit"], found["session_remaining_today"]

    assert check(amount=20, merchant_id="books") == (True, 20, 100)
    assert check(amount=21, merchant_id="books") == (False, 20, 100)
    assert check(amount=50, merchant_id="data") == (True, 50, 100)
    assert check(amount=1) == (False, 50, 100)  # nobody is named, and it pays no others
    child = tenant.call(
        "POST",
        f"{SESSIONS}/{session['id']}/children",
        {name: session[name] for name in ("agent_id", "limits", "allowed_merchants", "conditions")},
        token=session["session_token"],
    ).json()
    tenant.hold(child["session_token"], 50, merchant_id="data")
    tenant.hold(child["session_token"], 20, merchant_id="data")
    assert check(amount=1, merchant_id="data") == (True, 30, 30)
    tenant.hold(session["session_token"], 1, merchant_id="data")
    assert check(amount=1, merchant_id="data") == (False, 0, 29)  # no payment is left
    status = tenant.post(f"{KEYS}/status", {"session_key_id": session["id"]}).json()
    assert status["linked_session"]["effective_limit"] == 0


def test_a_session_key_affords_the_least_that_any_limit_leaves(tenant: Served) -> None:
    session = tenant.session(
        limits={"max_per_transaction": 50, "max_per_day": 80, "max_per_week": 70},
        conditions=["lifetime at most 60 USD"],
        duration_hours=36,  # no whole number of days ends while it is told twice
    )

    def check(amount: int) -> dict[str, Any]:
        path = f"{KEYS}/{session['id']}/check-payment"
        found: dict[str, Any] = tenant.post(path, {"amount": amount}).json()
        return found

    assert check(50) == {
        "allowed": True, "reason": None, "effective_limit": 50,
        "session_key_remaining": 60, "session_remaining_today": 80,
    }  # fmt: skip
    tenant.hold(session["session_token"], 45)
    left = check(16)
    assert (left["allowed"], left["effective_limit"]) == (False, 15)
    assert left["reason"]
    assert check(15)["allowed"]
    tenant.call("PUT", "/api/v1/agents/bot/budget", {"max_per_day": 50}, key=tenant.key)
    assert (check(6)["allowed"], check(6)["effective_limit"]) == (False, 5)
    tenant.call("DELETE", "/api/v1/agents/bot/budget", key=tenant.key)
    status = tenant.post(f"{KEYS}/status", {"session_key_id": session["id"]}).json()
    amounts = [status[name] for name in ("limit_usdc", "used_amount_usdc", "remaining_usdc")]
    assert amounts == [60, 45, 15]
    assert (status["is_active"], status["linked_session"]["effective_limit"]) == (True, 15)
    tenant.session()
    listed = tenant.get(f"{KEYS}/list").json()
    assert listed["session_keys"][1] == status
    assert listed["merchant_id"] == tenant.workspace_id
    assert listed["stats"] == {
        "total_keys": 2,
        "active_keys": 2,
        "total_limit_usdc": 60,
        "total_used_usdc": 45,
    }
    assert tenant.get(f"{KEYS}/list?status=revoked").json()["session_keys"] == []
    tenant.post(f"{KEYS}/revoke", {"session_key_id": session["id"]})
    assert not check(1)["allowed"]


def test_what_is_not_offered_says_so_and_why_and_is_in_the_document(api: Served) -> None:
    for path, why in NOT_OFFERED:
        for root in ("/api/v1", ""):
            if root or path.startswith("/ai/"):
                answer = api.post(root + path.format(id="sk_1"), {"amount": 1})
                refused(answer, 501, "not_offered")
                assert answer.json()["message"] == why
        last = re.sub(r"\{id\}", "", path).rstrip("/").rpartition("/")[2]
        assert last in COMPATIBILITY or path.startswith("/ai/autonomy/"), path
    refused(api.get("/api/v1/escrows/esc_1/events"), 501, "not_offered")
    refused(api.post("/api/v1/ai/session-keys/x/y"), 404, "not_found")
