"""Keys over HTTP: what is answered, once and never again, and what they stop to open."""

from typing import Any

import httpx
import pytest

from api.rest.aliases import real_path
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served, refused

AGENT_KEYS = "/api/v1/agent-keys"
API_KEYS = "/api/v1/api-keys"
AUDIT = "/api/v1/audit"
ABOVE_50 = NO_LIMITS | {"require_approval_above": 50}


def make(api: Served, **fields: Any) -> dict[str, Any]:
    """A key of the agent `bot`, as it was answered."""
    answer = api.post(AGENT_KEYS, {"name": "crawler", "agent_id": "bot"} | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_an_agent_key_has_the_names_that_clients_read(tenant: Served) -> None:
    made = make(tenant, agent_name="Bot", metadata={"team": 7})
    full_key, prefix = made.pop("full_key"), made["key_prefix"]
    assert full_key.startswith("zai_test_")
    assert (len(prefix), full_key[:12]) == (12, prefix)
    assert made.pop("id").startswith("ak_")
    assert made.pop("created_at").endswith("Z")
    assert made == {
        "key_prefix": prefix,
        "name": "crawler",
        "agent_id": "bot",
        "agent_name": "Bot",
        "scopes": ["create_payments"],
        "rate_limit_per_hour": 1000,
        "ip_allowlist": [],
        "agent_metadata": {"team": 7},
        "is_active": True,
        "request_count": 0,
        "last_used_at": None,
        "expires_at": None,
        "revoked_at": None,
    }
    [listed] = tenant.get(AGENT_KEYS).json()
    assert "full_key" not in listed
    assert [agent["agent_id"] for agent in tenant.get("/api/v1/agents").json()] == ["bot"]


def test_a_key_counts_its_requests_and_ends_at_once(tenant: Served) -> None:
    made = make(tenant)
    answers = [tenant.get(SESSIONS, key=made["full_key"]) for _ in range(3)]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["999", "998", "997"]
    [listed] = tenant.get(AGENT_KEYS).json()
    assert (listed["request_count"], listed["last_used_at"] is None) == (3, False)
    for _ in range(2):  # the second time changes nothing
        assert tenant.post(f"{AGENT_KEYS}/{made['id']}/revoke").json() == {"success": True}
    refused(tenant.get(SESSIONS, key=made["full_key"]), 401, "api_key_revoked")
    [listed] = tenant.get(AGENT_KEYS).json()
    assert (listed["is_active"], listed["revoked_at"] is None) == (False, False)
    assert tenant.get(AGENT_KEYS, headers={}).headers["X-Total-Count"] == "1"
    assert tenant.get(f"{AGENT_KEYS}?agent_id=nobody").json() == []


def test_too_often_is_a_429_that_says_for_how_long(tenant: Served) -> None:
    key = make(tenant, rate_limit_per_hour=2)["full_key"]
    first = tenant.get(SESSIONS, key=key)
    assert tenant.get(f"{SESSIONS}/none", key=key).status_code == 404  # counts as well
    for _ in range(2):
        answer = tenant.get(SESSIONS, key=key)
        body = answer.json()
        assert (answer.status_code, body["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["Retry-After"] == str(body["retry_after"])
        assert 3_590 < body["retry_after"] <= 3_600
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        reset = answer.headers["X-RateLimit-Reset"], first.headers["X-RateLimit-Reset"]
        assert abs(int(reset[0]) - int(reset[1])) <= 1
    [listed] = tenant.get(AGENT_KEYS).json()
    assert listed["request_count"] == 2
    assert "X-RateLimit-Limit" not in tenant.get(SESSIONS).headers


def test_a_key_is_used_from_where_it_may_be_and_nowhere_else(tenant: Served) -> None:
    networks = ["203.0.113.7", "2001:db8::/32"]
    made = make(tenant, ip_allowlist=networks)
    assert made["ip_allowlist"] == ["203.0.113.7/32", "2001:db8::/32"]
    for address, status in (
        ("203.0.113.7", 200),
        ("::ffff:203.0.113.7", 200),
        ("2001:db8:1::5", 200),
        ("203.0.113.8", 403),
        ("2001:db9::1", 403),
        ("nonsense", 403),
    ):
        # The proxy in front of the server is on this machine, and is believed.
        sent = {"X-Forwarded-For": address}
        assert tenant.get(SESSIONS, key=made["full_key"], headers=sent).status_code == status
    refused(tenant.get(SESSIONS, key=made["full_key"]), 403, "ip_not_allowed")
    for wrong in ("203.0.113.7/33", "203.0.113.7/24", "example.org", ""):
        body = {"name": "n", "agent_id": "bot", "ip_allowlist": ["192.0.2.1", wrong]}
        refused(tenant.post(AGENT_KEYS, body), 422, "invalid_parameter", "ip_allowlist[1]")


def test_the_key_beside_a_token_must_hold_whatever_way_is_paid(tenant: Served) -> None:
    session = tenant.session()
    token = session["session_token"]
    key, looks = make(tenant)["full_key"], make(tenant, scopes=["read_only"])["full_key"]
    both = {"headers": {"X-Session-Token": token}}
    assert tenant.post(PAYMENTS, {"amount": 1}, key=key, **both).status_code == 201
    body = {"amount_usd": 1, "session_token": token}
    assert tenant.post(SMART, body, key=key).status_code == 200
    for path, sent in ((PAYMENTS, {"amount": 1}), (SMART, body)):
        answer = tenant.post(path, sent, key=looks, **both)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert answer.json()["details"]["scopes"] == ["create_payments", "full"]
        without = {"amount": 1} if path == PAYMENTS else {"amount_usd": 1}
        refused(tenant.post(path, without, key=key), 401, "invalid_session_token")
    assert tenant.get(PAYMENTS, key=looks).json()["pagination"]["total"] == 2
    elsewhere = tenant.session(agent_id="another")["session_token"]
    tenant.hold(elsewhere)
    assert tenant.get(PAYMENTS, key=looks).json()["pagination"]["total"] == 2
    assert [each["id"] for each in tenant.get(SESSIONS, key=looks).json()] == [session["id"]]
    assert tenant.get(f"{SESSIONS}?agent_id=another", key=looks).json() == []


def test_a_key_of_an_operator_is_made_by_the_admin_and_exchanged_by_its_owner(api: Served) -> None:
    tenant = api.tenant("with-more-keys")
    body = {"name": "Ada", "mode": "live", "workspace_id": tenant.workspace_id}
    refused(tenant.post(API_KEYS, body), 401, "admin_key_required")
    refused(api.post(API_KEYS, body | {"workspace_id": "none"}), 404, "workspace_not_found")
    ada = api.post(API_KEYS, body).json()
    assert ada["full_key"].startswith("zfi_live_")
    assert (ada["role"], ada["mode"], ada["name"]) == ("operator", "live", "Ada")
    assert make(api.tenant("live"), name="x")["full_key"].startswith("zai_test_")
    live = api.post(AGENT_KEYS, {"name": "n", "agent_id": "a"}, key=ada["full_key"]).json()
    assert live["full_key"].startswith("zai_live_")

    [first, second] = tenant.get(API_KEYS).json()
    assert (second["id"], "full_key" in second) == (ada["id"], False)
    for what in ("rotate", "revoke"):
        answer = tenant.post(f"{API_KEYS}/{ada['id']}/{what}")
        refused(answer, 403, "admin_key_required")
    rotated = api.post(f"{API_KEYS}/{ada['id']}/rotate", key=ada["full_key"]).json()
    assert (rotated["name"], rotated["mode"]) == ("Ada", "live")
    refused(tenant.get(SESSIONS, key=ada["full_key"]), 401, "invalid_api_key")
    assert tenant.get(SESSIONS, key=rotated["full_key"]).status_code == 200
    refused(api.post(f"{API_KEYS}/{ada['id']}/rotate"), 409, "key_revoked")
    assert tenant.post(f"{API_KEYS}/{first['id']}/revoke").json() == {"success": True}
    refused(tenant.get(SESSIONS), 401, "invalid_api_key")
    [admin] = [key for key in api.get(API_KEYS).json() if key["role"] == "admin"]
    refused(api.post(f"{API_KEYS}/{admin['id']}/revoke"), 409, "admin_key")


def test_nobody_grants_twice_by_way_of_another_key(api: Served) -> None:
    tenant = api.tenant("of-two")
    session = tenant.session(limits=ABOVE_50, approvals_required=2)
    approval = tenant.pay(session["session_token"], 60).json()["approval_id"]
    path = f"/api/v1/approvals/{approval}/grant"
    assert tenant.post(path).json()["state"] == "waiting"
    [own] = tenant.get(API_KEYS).json()
    tenant.key = tenant.post(f"{API_KEYS}/{own['id']}/rotate").json()["full_key"]
    again = tenant.post(path).json()
    assert again["state"] == "waiting"
    assert [each["counts"] for each in again["grants"]] == [False, True]
    assert tenant.get(f"/api/v1/approvals/{approval}").json() == again
    body = {"name": "another person", "workspace_id": tenant.workspace_id}
    other = api.post(API_KEYS, body).json()["full_key"]
    assert tenant.post(path, key=other).json()["state"] == "granted"


def test_the_admins_key_is_exchanged_for_another(own_api: Served) -> None:
    [admin] = own_api.get(API_KEYS).json()
    rotated = own_api.post(f"{API_KEYS}/{admin['id']}/rotate").json()
    refused(own_api.get(SESSIONS), 401, "invalid_api_key")
    own_api.key = rotated["full_key"]
    assert own_api.workspace("made-by-the-new-one")


def test_what_was_done_is_listed_by_whom_what_and_when(tenant: Served) -> None:
    [me] = [key["id"] for key in tenant.get(API_KEYS).json()]
    session = tenant.session()["id"]
    for what in ("pause", "resume", "revoke"):
        tenant.post(f"{SESSIONS}/{session}/{what}")
    made = make(tenant)
    tenant.post(f"{AGENT_KEYS}/{made['id']}/revoke")
    acts = tenant.get(AUDIT).json()["data"]
    assert [(act["action"], act["resource_id"]) for act in acts][::-1][2:] == [
        ("agent.registered", "bot"),
        ("session.created", session),
        ("session.paused", session),
        ("session.resumed", session),
        ("session.revoked", session),
        ("agent.key.created", made["id"]),
        ("agent.key.revoked", made["id"]),
    ]
    assert {act["actor"] for act in acts[:7]} == {me}
    assert acts[0]["ip_address"] is None
    assert made["full_key"] not in str(acts)

    def found(query: str) -> list[str]:
        return [act["action"] for act in tenant.get(f"{AUDIT}?{query}").json()["data"]]

    both = "action=session.paused&action=session.resumed"
    assert found(both) == ["session.resumed", "session.paused"]
    assert found(f"{both}&actor=nobody") == []
    assert len(found(f"actor={me}")) == 7
    assert found("limit=1&page=2") == ["agent.key.created"]
    paused = acts[4]["timestamp"]
    assert "session.paused" in found(f"start_date={paused}")
    assert "session.paused" not in found(f"end_date={paused}")
    assert found("end_date=2026-01-01") == []
    for first in ("0001-01-01", "0001-01-01T00:00:00%2B14:00", "1969-12-31T23:59:59.999999-12:00"):
        assert len(found(f"start_date={first}&end_date=9999-12-31T23:59:59.999999Z")) == len(acts)
    assert found("start_date=9999-12-31") == []
    wrong_dates = (
        *("2026-13-01", "yesterday", "1700000000", "2026-01-01T00:00:00", "0000-01-01"),
        *(
            "2026-02-29",
            "2026-12-31T23:59:60Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00%2B24:00",
        ),
        *("-2026-01-01", "10000-01-01", "2026-W01-1", "20260101", "2026-01-01%2000:00:00Z", "1e9"),
    )
    for wrong in wrong_dates:
        refused(tenant.get(f"{AUDIT}?start_date={wrong}"), 422, "invalid_parameter", "start_date")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/agent-keys", AGENT_KEYS),
        ("/api/v1/ai/agent-keys", AGENT_KEYS),
        ("/ai/agent-keys/ak_1/revoke", f"{AGENT_KEYS}/ak_1/revoke"),
        ("/api/v1/merchants/me/api-keys", API_KEYS),
        ("/ai/sessions/sess_1", f"{SESSIONS}/sess_1"),
        ("/api/v1/api/v1/ai/sessions", SESSIONS),
        ("/ai/smart-payment", SMART),
        (PAYMENTS, PAYMENTS),
        ("/payments/pay_1", f"{PAYMENTS}/pay_1"),
        ("/webhooks", "/api/v1/webhooks"),
        ("/merchants/me/api-keys/key_1/rotate", f"{API_KEYS}/key_1/rotate"),
        ("/aid", "/aid"),
        ("/agent-keysmith", "/agent-keysmith"),
    ],
)
def test_routes_have_the_names_that_clients_call_them_by(name: str, path: str) -> None:
    assert real_path(name) == path


def test_an_alias_is_answered_in_place(tenant: Served) -> None:
    make(tenant)
    headers = {"Authorization": f"Bearer {tenant.key}"}
    paths = (AGENT_KEYS, "/agent-keys", "/ai/sessions")
    real, alias, sessions = (httpx.get(tenant.url + path, headers=headers) for path in paths)
    assert (real.status_code, real.content) == (200, alias.content)
    assert sessions.json() == []
