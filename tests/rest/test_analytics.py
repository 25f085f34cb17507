"""Analytics over REST, in the shape of the agent-session API."""

from datetime import UTC, datetime

from api.rest.aliases import real_path
from engine.clock import system_clock
from tests.rest.served import NO_LIMITS, PAYMENTS, Served, refused

ANALYTICS = "/api/v1/analytics/agents"


def test_it_answers_what_the_agents_spent(tenant: Served) -> None:
    empty = tenant.get(ANALYTICS).json()
    assert [empty[name] for name in ("total_payments", "success_rate")] == [0, 0]
    session = tenant.session(limits=NO_LIMITS | {"max_per_transaction": 50})
    token = session["session_token"]
    tenant.session(agent_id="another")
    child = tenant.post(
        f"/api/v1/ai/sessions/{session['id']}/children",
        {"agent_id": "bot", "duration_hours": 1, "limits": {"max_per_transaction": 1}},
    )
    assert child.status_code == 201
    for amount in (10, 20, "0.01"):
        held = tenant.hold(token, amount)["id"]
        assert tenant.post(f"{PAYMENTS}/{held}/capture").status_code == 200
    tenant.hold(token, 5)
    assert tenant.pay(token, 51).status_code == 402
    found = tenant.get(ANALYTICS + "?days=2").json()
    today = datetime.fromtimestamp(system_clock() / 1_000, UTC).date().isoformat()
    assert found.pop("payments_by_day")[-1] == {"date": today, "count": 3, "volume_usd": 30.01}
    for alias in ("/analytics/agents", "/ai/analytics/agents", "/api/v1/ai/analytics/agents"):
        assert real_path(alias) == ANALYTICS
    assert found == {
        "total_payments": 3,
        "total_volume_usd": 30.01,
        "average_payment_usd": 10.003333,
        "success_rate": 0.75,
        "active_sessions": 3,
        "active_delegates": 1,
        "ppp_savings_usd": 0,
        "payments_by_token": {"SOL": 0, "USDC": 3, "USDT": 0},
    }
    assert len(tenant.get(ANALYTICS).json()["payments_by_day"]) == 30
    assert tenant.get(ANALYTICS + "?agent_id=another").json()["total_payments"] == 0
    for days in ("0", "91", "1.5", "x"):
        refused(tenant.get(f"{ANALYTICS}?days={days}"), 422, "invalid_parameter", "days")


def test_an_agent_sees_its_own_part(tenant: Served) -> None:
    for agent in ("bot", "another"):
        held = tenant.hold(tenant.session(agent_id=agent)["session_token"], 3)["id"]
        tenant.post(f"{PAYMENTS}/{held}/capture")
    body = {"name": "a key", "agent_id": "another", "scopes": ["read_analytics"]}
    key = tenant.post("/api/v1/agent-keys", body).json()["full_key"]
    assert tenant.get(ANALYTICS).json()["total_payments"] == 2
    own = tenant.get(ANALYTICS, key=key).json()
    assert (own["total_payments"], own["active_sessions"]) == (1, 1)
    refused(tenant.get(ANALYTICS + "?agent_id=bot", key=key), 404, "agent_not_found")
