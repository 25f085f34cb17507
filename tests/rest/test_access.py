"""Who may do what: every route against every kind of caller, and ids that are not the caller's."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.routing import Mount

from api.rest.app import create_app
from tests.rest.served import (
    APPROVALS,
    FRAMEWORK_PATHS,
    NO_LIMITS,
    PAYMENTS,
    SESSIONS,
    SMART,
    Served,
    refused,
)


@dataclass(frozen=True)
class Route:
    """Who a route is for, what is sent, and what the rightful caller hears."""

    who: str
    status: int = 200
    body: Any = None


GENEROUS = {"max_per_day": 999_999_999}
WORKSPACE_BUDGET = "/api/v1/budgets/workspace"
AGENT_BUDGET = "/api/v1/agents/{agent_id}/budget"
AGENT = "an-agent-of-acme-and-of-nobody-else"
SIGNATURE = {"owner_signature": "0x" + "11" * 65}
NO_OFFER = {
    "payment_required": {"x402Version": 2, "accepts": []},
    "resource": "https://shop.test/",
}
TRANSFER = {"to": "0x" + "5b" * 20, "amount": 1}
ROUTES = {
    ("GET", "/healthz"): Route("anybody"),
    ("GET", "/readyz"): Route("anybody"),
    ("GET", "/api/v1/deployment"): Route("anybody"),
    ("POST", PAYMENTS): Route("session", 201, {"amount": 1}),
    ("POST", SMART): Route("session", 200, {"amount_usd": 1}),
    ("GET", PAYMENTS): Route("party"),
    ("GET", PAYMENTS + "/{payment_id}"): Route("party"),
    ("GET", PAYMENTS + "/{payment_id}/explanation"): Route("party"),
    ("POST", PAYMENTS + "/{payment_id}/capture"): Route("party"),
    ("POST", PAYMENTS + "/{payment_id}/void"): Route("party"),
    ("POST", "/api/v1/ai/payments/{payment_id}/settlement"): Route("party", 409, {"unknown": True}),
    ("GET", APPROVALS): Route("operator"),
    ("GET", APPROVALS + "/{approval_id}"): Route("party"),
    ("POST", APPROVALS + "/{approval_id}/grant"): Route("operator"),
    ("POST", APPROVALS + "/{approval_id}/deny"): Route("operator", 200, {"reason": "no"}),
    ("POST", "/api/v1/workspaces"): Route("admin", 409, {"id": "acme", "name": "Acme"}),
    ("POST", "/api/v1/agents"): Route("operator", 201, {"agent_id": "bot"}),
    ("GET", "/api/v1/agents"): Route("operator"),
    ("POST", "/api/v1/log/anchor"): Route("operator"),
    ("POST", "/api/v1/evidence/verify"): Route("party", 200, {"evidence": "{}"}),
    ("POST", "/api/v1/chain/resume"): Route("admin", 409),
    ("POST", "/api/v1/reconciliation"): Route("operator"),
    ("GET", "/api/v1/reconciliation"): Route("operator"),
    ("GET", "/metrics"): Route("admin"),
    ("GET", "/api/v1/budgets"): Route("operator"),
}
for budget in (WORKSPACE_BUDGET, AGENT_BUDGET):
    ROUTES |= {
        ("PUT", budget): Route("operator", 200, GENEROUS),
        ("GET", budget): Route("operator"),
        ("DELETE", budget): Route("operator"),
    }
for root in (SESSIONS, "/api/v1/sessions"):
    ROUTES |= {
        ("POST", root): Route("operator", 201, {"agent_id": "bot", "user_wallet": "wallet"}),
        ("GET", root): Route("party"),
        ("GET", root + "/{session_id}"): Route("party"),
        ("POST", root + "/{session_id}/children"): Route(
            "party", 201, {"agent_id": "bot", "duration_hours": 1}
        ),
        ("POST", root + "/{session_id}/consent"): Route("operator", 409, SIGNATURE),
        ("POST", root + "/{session_id}/restrict"): Route("operator", 200, {"restrictions": []}),
        ("POST", root + "/{session_id}/revoke"): Route("operator"),
        ("GET", root + "/{session_id}/evidence"): Route("operator", 409),
        ("POST", root + "/{session_id}/x402"): Route("party", 422, NO_OFFER),
        ("POST", root + "/{session_id}/execute"): Route("party", 201, TRANSFER),
        ("POST", root + "/{session_id}/simulate"): Route("party", 200, {"amount": 1}),
        ("POST", root + "/{session_id}/backtest"): Route("operator", 200, {}),
    }

ABSENT = {
    "session_id": "sess_" + "0" * 26,
    "payment_id": "pay_" + "0" * 26 + "_0",
    "approval_id": "apr_" + "0" * 26 + "_0",
    "agent_id": "nobody",
}
CALLERS = (
    "nobody",
    "no bearer",
    "empty bearer",
    "unknown key",
    "unknown token",
    "key as token",
    "revoked key",
    "operator",
    "admin",
    "other workspace",
    "session",
    "session as bearer",
    "other session",
)
NAMED = [pair for pair in ROUTES if not pair[1].startswith("/api/v1/sessions")]  # once is enough
WRITING = [pair for pair in NAMED if pair[0] in ("POST", "PUT") and pair != ("POST", SMART)]
STRANGERS = CALLERS[: CALLERS.index("operator")]


class Callers:
    """One of each, with a session and a held payment of `acme` to ask for."""

    def __init__(self, api: Served) -> None:
        revoked, admin = api.key, "zfi_test_the_second_admin_key"
        self.acme = api.workspace("acme")
        other = api.workspace("other")
        api.world.engine.access.ensure_admin(admin)  # revokes the first
        api.key = admin
        self.api = api
        limits = NO_LIMITS | {"require_approval_above": 1_000_000}
        self.session = api.session(key=self.acme, limits=limits)
        self.token = self.session["session_token"]
        api.post("/api/v1/agents", {"agent_id": AGENT}, key=self.acme)
        self.operators = {self.acme, admin, other}
        foreign = api.session(key=self.acme)["session_token"]
        self.credentials: dict[str, dict[str, Any]] = {
            "nobody": {},
            "no bearer": {"headers": {"Authorization": f"Basic {self.acme}"}},
            "empty bearer": {"headers": {"Authorization": "Bearer"}},
            "unknown key": {"key": "zfi_test_" + "0" * 64},
            "unknown token": {"token": "zai_session_" + "0" * 64},
            "key as token": {"token": self.acme},
            "revoked key": {"key": revoked},
            "operator": {"key": self.acme},
            "admin": {"key": admin},
            "other workspace": {"key": other},
            "session": {"token": self.token},
            "session as bearer": {"key": self.token},
            "other session": {"token": foreign},
        }

    def ask(self, caller: str, method: str, path: str, **changes: str) -> Any:
        """Ask for the session and for a new hold of `acme`, or for the ids given."""
        ids = {"session_id": self.session["id"], "agent_id": AGENT} | changes
        if "budget" in path and method != "PUT":  # what was lifted before is there again
            self.api.call("PUT", AGENT_BUDGET.format(**ids), GENEROUS, key=self.acme)
            for key in self.operators:
                self.api.call("PUT", WORKSPACE_BUDGET, GENEROUS, key=key)
        if "{payment_id}" in path and "payment_id" not in ids:
            ids["payment_id"] = self.api.hold(self.token)["id"]
        if "{approval_id}" in path and "approval_id" not in ids:
            ids["approval_id"] = self.waiting()
        body = ROUTES[method, path].body
        sent = {} if body is None else {"body": body}
        return self.api.call(method, path.format(**ids), **sent, **self.credentials[caller])

    def waiting(self) -> str:
        """An approval of the session, which nobody decided yet."""
        approval: str = self.api.pay(self.token, 1_000_001).json()["approval_id"]
        return approval


@pytest.fixture(scope="module")
def callers(api: Served) -> Callers:
    return Callers(api)


def expected(route: Route, path: str, caller: str) -> int:
    """The declared table: the status that a caller hears."""
    if route.who == "anybody":
        return route.status
    if caller in STRANGERS:
        return 401
    is_session = "session" in caller
    rightful = {
        "operator": not is_session,
        "admin": caller == "admin",
        "session": is_session,
        "party": True,
    }[route.who]
    if not rightful:
        return 401
    foreign = caller in ("admin", "other workspace", "other session")
    return 404 if foreign and "{" in path else route.status


def test_every_route_has_a_row_here_and_every_row_a_route(api: Served) -> None:
    served = set()
    routes = create_app(api.world.engine).routes
    assert [route.path for route in routes if isinstance(route, Mount)] == ["/static-offline-docs"]
    for route in (route for route in routes if not isinstance(route, Mount)):
        contexts = getattr(route, "effective_route_contexts", lambda route=route: [route])()
        served |= {
            (method, found.path.replace(":path}", "}"))
            for found in contexts
            for method in found.methods
        }
    framework = {(m, path) for path in FRAMEWORK_PATHS for m in ("GET", "HEAD")}
    assert served - framework == set(ROUTES)
    documented = {
        (method.upper(), path)
        for path, operations in api.openapi["paths"].items()
        for method in operations
    }
    assert documented == set(ROUTES)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=map(" ".join, ROUTES))
def test_each_caller_hears_what_the_table_says(
    callers: Callers, method: str, path: str, caller: str
) -> None:
    if path.endswith("/revoke"):  # for good, so on a session that nobody else needs
        other = callers.api.session(key=callers.acme)["id"]
        answer = callers.ask(caller, method, path, session_id=other)
    else:
        answer = callers.ask(caller, method, path)
    assert answer.status_code == expected(ROUTES[method, path], path, caller), answer.text
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("caller", STRANGERS)
@pytest.mark.parametrize(("method", "path"), WRITING, ids=map(" ".join, WRITING))
def test_strangers_learn_nothing_from_what_they_send_and_leave_no_trace(
    callers: Callers, method: str, path: str, caller: str
) -> None:
    api = callers.api
    ids = {**ABSENT, "session_id": callers.session["id"], "agent_id": AGENT}
    before = api.records()
    for raw in ("{", "[]", '{"unknown":1}'):
        answer = api.call(method, path.format(**ids), raw=raw, **callers.credentials[caller])
        assert answer.status_code == 401
    assert api.records() == before


@pytest.mark.parametrize("caller", STRANGERS)
def test_a_stranger_with_a_smart_payment_nobody_can_read_leaves_no_trace(
    callers: Callers, caller: str
) -> None:
    """Its body may hold the token, so only a key is refused before the body is read."""
    before = callers.api.records()
    answer = callers.api.call("POST", SMART, raw="{", **callers.credentials[caller])
    expected = 401 if caller in ("unknown key", "revoked key") else 422
    assert answer.status_code == expected
    assert callers.api.records() == before


def test_only_the_admin_hears_that_a_key_is_not_the_admins(callers: Callers) -> None:
    refused(callers.ask("operator", "POST", "/api/v1/workspaces"), 401, "admin_key_required")


NAMED_BY_ID = [pair for pair in NAMED if "{" in pair[1]]
BY_ID = [pair for pair in ROUTES if "{" in pair[1]]


@pytest.mark.parametrize(("method", "path"), BY_ID, ids=map(" ".join, BY_ID))
def test_what_is_anothers_looks_like_what_does_not_exist(
    callers: Callers, method: str, path: str
) -> None:
    absent = callers.ask("operator", method, path, **ABSENT)
    token_too = "payment_id" in path or path == APPROVALS + "/{approval_id}"
    others = ["other workspace"] + (["other session"] if token_too else [])
    foreign = [callers.ask(caller, method, path) for caller in others]
    assert absent.status_code == 404
    assert {(a.status_code, a.content) for a in foreign} == {(404, absent.content)}


def test_a_session_token_of_another_workspace_looks_like_one_that_does_not_exist(
    callers: Callers,
) -> None:
    def pay(token: str) -> Any:
        body = {"amount_usd": 1, "session_token": token}
        return callers.api.call("POST", SMART, body, **callers.credentials["other workspace"])

    foreign, unknown = pay(callers.token), pay("zai_session_" + "0" * 64)
    refused(foreign, 401, "invalid_session_token")
    assert foreign.content == unknown.content


@pytest.mark.parametrize("caller", ["unknown key", "revoked key"])
def test_a_session_token_does_not_make_up_for_a_bad_key_beside_it(
    callers: Callers, caller: str
) -> None:
    body = {"amount_usd": 1, "session_token": callers.token}
    answer = callers.api.call("POST", SMART, body, **callers.credentials[caller])
    refused(answer, 401, "invalid_api_key")


def test_the_lists_of_one_tenant_hold_nothing_of_another(callers: Callers) -> None:
    payment = callers.api.hold(callers.token)["id"]
    callers.ask("operator", "POST", "/api/v1/agents")
    empty = callers.api.workspace("empty")
    seen = {"sessions": SESSIONS, "agents": "/api/v1/agents", "payments": PAYMENTS}
    theirs = {n: callers.api.get(path, key=empty).json() for n, path in seen.items()}
    assert (theirs["sessions"], theirs["agents"], theirs["payments"]["data"]) == ([], [], [])
    assert theirs["payments"]["pagination"]["total"] == 0
    mine = {n: callers.api.get(path, key=callers.acme).json() for n, path in seen.items()}
    assert callers.session["id"] in [session["id"] for session in mine["sessions"]]
    assert [agent["agent_id"] for agent in mine["agents"]] == [AGENT, "bot"]
    assert payment in [payment["id"] for payment in mine["payments"]["data"]]


def test_a_session_token_lists_the_payments_of_its_session_alone(callers: Callers) -> None:
    callers.api.hold(callers.token)
    mine = callers.ask("session", "GET", PAYMENTS).json()
    others = callers.ask("other session", "GET", PAYMENTS).json()
    assert {p["session_id"] for p in mine["data"]} == {callers.session["id"]}
    assert callers.session["id"] not in {p["session_id"] for p in others["data"]}


TRICKS = {
    "parent": "..",
    "encoded parent": "%2e%2e",
    "encoded slash": "a%2Fb",
    "double encoding": "%252e%252e",
    "nul": "{id}%00",
    "newline": "{id}%0a",
    "space": "{id}%20",
    "not utf-8": "%ff%fe",
    "upper case": "{ID}",
    "semicolon": "{id};x=1",
    "wildcard": "%25",
    "sql": "'%20OR%20'1'='1",
    "long": "a" * 5_000,
    "other kind": "key_" + "0" * 26,
    "trailing slash": "{id}/",
    "half": "{half}",
}
NUMBERS = ("_-1", "_00", "_+1", "_1e0", "_", "_" + "9" * 40, "_9223372036854775808", "_%EF%BC%90")


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(("method", "path"), NAMED_BY_ID, ids=map(" ".join, NAMED_BY_ID))
def test_nothing_but_the_id_itself_names_a_thing(
    callers: Callers, method: str, path: str, trick: str
) -> None:
    payment = callers.api.hold(callers.token)["id"]
    own = callers.session["id"] if "session_id" in path else payment
    own = AGENT if "agent_id" in path else own
    own = callers.waiting() if "approval_id" in path else own
    text = TRICKS[trick].format(id=own, ID=own.upper(), half=own[:20])
    target = re.sub(r"\{\w+\}", lambda _: text, path)
    body = ROUTES[method, path].body
    before = callers.api.records()
    answer = callers.api.http.request(
        method,
        "/",
        json=body,
        headers={"Authorization": f"Bearer {callers.acme}"},
        extensions={"target": target.encode()},
    )
    # `..` and a slash reach another route's path at most, where the method may be wrong.
    assert answer.status_code in (404, 405), answer.text
    assert callers.api.records() == before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_payments_number_has_one_spelling(callers: Callers, number: str) -> None:
    payment = callers.api.hold(callers.token)["id"]
    path = f"{PAYMENTS}/{payment.rpartition('_')[0]}{number}"
    refused(callers.api.get(path, key=callers.acme), 404, "payment_not_found")


@pytest.mark.parametrize(
    "path", ["//api/v1/payments", "/api/v1//payments", "/api/v1/payments/", "/API/V1/payments"]
)
def test_another_spelling_of_a_path_is_no_route(callers: Callers, path: str) -> None:
    answer = callers.api.http.request(
        "GET",
        "/",
        headers={"Authorization": f"Bearer {callers.acme}", "Host": "evil.example"},
        extensions={"target": path.encode()},
    )
    refused(answer, 404, "not_found")
    assert "evil.example" not in str(answer.headers) + answer.text


def test_a_method_is_not_overridden_by_a_header(callers: Callers) -> None:
    path = f"{SESSIONS}/{callers.session['id']}/revoke"
    answer = callers.api.get(path, key=callers.acme, headers={"X-HTTP-Method-Override": "POST"})
    refused(answer, 405, "method_not_allowed")


def test_a_secret_in_the_query_is_no_credential(callers: Callers) -> None:
    for name in ("api_key", "access_token", "authorization", "X-Session-Token"):
        answer = callers.api.call("GET", f"{SESSIONS}?{name}={callers.acme}")
        assert answer.status_code == 401
