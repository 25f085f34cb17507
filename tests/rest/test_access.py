"""Who may do what: every route against every kind of caller, and ids that are not the caller's.

What each caller should hear follows from the table that the server goes by (`api.rest.authority`).
"""

import re
from typing import Any

import pytest
from starlette.routing import Mount

from api.rest.app import create_app
from api.rest.authority import row_of
from tests.rest.bodies import CONFIRM, GOOD, INTENTS, WEBHOOKS
from tests.rest.operations import ABSENT, AGENT, AGENT_BUDGET, GENEROUS, ROUTES, WORKSPACE_BUDGET
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

CALLERS = (
    "nobody",
    "no bearer",
    "empty bearer",
    "unknown key",
    "unknown token",
    "key as token",
    "revoked key",
    "revoked agent",
    "expired agent",
    "operator",
    "admin",
    "other workspace",
    "session",
    "session as bearer",
    "other session",
    "agent",
    "agent that reads",
    "agent with token",
    "agent that reads, with token",
    "agent for analytics",
    "another agent",
    "another agent, with token",
    "agent of another workspace",
    "agent from elsewhere",
)
NAMED = [pair for pair in ROUTES if not pair[1].startswith("/api/v1/sessions")]  # once is enough
WRITES = ("POST", "PUT", "PATCH")
TOKEN_IN_BODY = (SMART, CONFIRM)
WRITING = [pair for pair in NAMED if pair[0] in WRITES and pair[1] not in TOKEN_IN_BODY]
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
        [own] = api.get("/api/v1/api-keys", key=self.acme).json()
        self.own_key = own["id"]
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
        self._agents(other)

    def _agents(self, other: str) -> None:
        """Keys of agents: `bot` is the agent of the session."""
        full = self.agent_key("full")
        reads = self.agent_key("read_only")
        another = self.agent_key("create_payments", agent_id=AGENT)
        expired, revoked = self.agent_key("full"), self.agent_key("full")
        keys = self.api.get("/api/v1/agent-keys", key=self.acme).json()
        self.api.post(f"/api/v1/agent-keys/{keys[0]['id']}/revoke", key=self.acme)
        self.api.world.engine.writer.call(
            lambda batch: batch._connection.exec_driver_sql(
                "UPDATE agent_keys SET expires_ms = created_ms WHERE id = ?", (keys[1]["id"],)
            )
        )
        self.credentials |= {
            "revoked agent": {"key": revoked},
            "expired agent": {"key": expired},
            "agent": {"key": self.agent_key("create_payments")},
            "agent that reads": {"key": reads},
            "agent with token": {"key": full, "token": self.token},
            "agent that reads, with token": {"key": reads, "token": self.token},
            "agent for analytics": {"key": self.agent_key("read_analytics")},
            "another agent": {"key": another},
            "another agent, with token": {"key": another, "token": self.token},
            "agent of another workspace": {"key": self.agent_key("full", key=other)},
            "agent from elsewhere": {"key": self.agent_key("full", ip_allowlist=["192.0.2.1"])},
        }

    def agent_key(self, scope: str, *, key: str | None = None, **fields: Any) -> str:
        """The secret of a new key of `bot` in `acme`, or of whom `fields` and `key` say."""
        body = {"name": "of a test", "agent_id": "bot", "scopes": [scope]}
        body |= {"rate_limit_per_hour": 100_000} | fields
        answer = self.api.post("/api/v1/agent-keys", body, key=key or self.acme)
        secret: str = answer.json()["full_key"]
        return secret

    def operator_key(self) -> str:
        """The id of a new key of an operator of `acme`."""
        made = self.api.post("/api/v1/api-keys", {"name": "a second", "workspace_id": "acme"})
        return str(made.json()["id"])

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
        if "{intent_id}" in path and "intent_id" not in ids:
            ids["intent_id"], secret = self.intent()
            body = body and body | {"client_secret": secret}
        if "{webhook_id}" in path and "webhook_id" not in ids:
            ids["webhook_id"] = self.webhook()
        if "{key_id}" in path and "key_id" not in ids:
            ids["key_id"] = self.operator_key()
        if "{agent_key_id}" in path and "agent_key_id" not in ids:
            self.agent_key("full")
            [newest, *_] = self.api.get("/api/v1/agent-keys", key=self.acme).json()
            ids["agent_key_id"] = newest["id"]
        if (
            path.endswith(("{session_id}/revoke", "{session_id}/pause"))
            and "session_id" not in changes
        ):
            ids["session_id"] = self.api.session(key=self.acme)["id"]  # that nobody else needs
        sent = {} if body is None else {"body": body}
        who = self.credentials[caller]
        headers = {**ROUTES[method, path].headers, **who.get("headers", {})}
        return self.api.call(method, path.format(**ids), **sent, **(who | {"headers": headers}))

    def waiting(self) -> str:
        """An approval of the session, which nobody decided yet."""
        approval: str = self.api.pay(self.token, 1_000_001).json()["approval_id"]
        return approval

    def intent(self) -> tuple[str, str]:
        """A payment intent of the session, which nobody confirmed yet, and its secret."""
        made = self.api.call("POST", INTENTS, {"amount": 1}, token=self.token).json()
        return made["id"], made["client_secret"]

    def webhook(self) -> str:
        """A webhook of `acme`: the one that is there, or a new one."""
        for each in self.api.get(WEBHOOKS, key=self.acme).json():
            return str(each["id"])
        return str(self.api.post(WEBHOOKS, GOOD[WEBHOOKS], key=self.acme).json()["id"])


@pytest.fixture(scope="module")
def callers(api: Served) -> Callers:
    return Callers(api)


def expected(method: str, path: str, caller: str) -> int:
    """The status that a caller hears, by the declared table."""
    row, route = row_of(method, path), ROUTES[method, path]
    if row.who == "anybody":
        return route.status
    if caller in STRANGERS:
        return 401
    if caller in route.others:
        return route.others[caller]
    if "agent" in caller:
        return expected_of_agent(method, path, caller)
    is_session = "session" in caller
    rightful = {
        "operator": not is_session,
        "admin": caller == "admin",
        "session": is_session,
        "party": True,
    }[row.who]
    if not rightful:
        return 401
    foreign = caller in ("admin", "other workspace", "other session")
    return 404 if foreign and "{" in path else route.status


def expected_of_agent(method: str, path: str, caller: str) -> int:
    """The same where an agent's key is sent, alone or beside the session's token."""
    row, route = row_of(method, path), ROUTES[method, path]
    if caller == "agent from elsewhere":
        return 403
    scope = {"agent": "create_payments", "another agent": "create_payments"}.get(
        caller.removesuffix(", with token"),
        "read_only" if "reads" in caller else "full",
    )
    scope = "read_analytics" if caller == "agent for analytics" else scope
    if scope not in row.scopes:
        return 403
    if "with token" in caller and row.who in ("session", "party"):
        return 401 if caller.startswith("another") else route.status
    if not row.alone:
        return 401
    foreign = caller.startswith("another") or caller == "agent of another workspace"
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


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=map(" ".join, ROUTES))
def test_each_caller_hears_what_the_table_says(callers: Callers, method: str, path: str) -> None:
    # The other root has the same rows, or there would be no application.
    asking = CALLERS if (method, path) in NAMED else ("nobody", "operator", "agent", "session")
    answers = {caller: callers.ask(caller, method, path) for caller in asking}
    heard = {caller: answer.status_code for caller, answer in answers.items()}
    assert heard == {caller: expected(method, path, caller) for caller in asking}
    for caller, answer in answers.items():
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        if answer.status_code == 403 and caller != "operator":
            codes = ("insufficient_scope", "ip_not_allowed")
            assert answer.json()["code"] == codes[caller == "agent from elsewhere"]


@pytest.mark.parametrize(("method", "path"), WRITING, ids=map(" ".join, WRITING))
def test_strangers_learn_nothing_from_what_they_send_and_leave_no_trace(
    callers: Callers, method: str, path: str
) -> None:
    api = callers.api
    ids = {**ABSENT, "session_id": callers.session["id"], "agent_id": AGENT}
    before = api.records()
    for caller in STRANGERS:
        for raw in ("{", "[]", '{"unknown":1}'):
            answer = api.call(method, path.format(**ids), raw=raw, **callers.credentials[caller])
            assert answer.status_code == 401, (caller, raw)
    assert api.records() == before


@pytest.mark.parametrize("caller", STRANGERS)
def test_a_stranger_whose_body_may_hold_a_token_and_cannot_be_read_leaves_no_trace(
    callers: Callers, caller: str
) -> None:
    """Only a key is refused before the body is read."""
    before = callers.api.records()
    heard = 401 if caller.startswith(("unknown key", "revoked", "expired")) else 422
    for path in TOKEN_IN_BODY:
        path = path.format(**ABSENT)
        answer = callers.api.call("POST", path, raw="{", **callers.credentials[caller])
        assert answer.status_code == heard
    assert callers.api.records() == before


def test_only_the_admin_hears_that_a_key_is_not_the_admins(callers: Callers) -> None:
    refused(callers.ask("operator", "POST", "/api/v1/workspaces"), 401, "admin_key_required")


BY_ID = [pair for pair in ROUTES if "{" in pair[1] and row_of(*pair).who != "session"]
NAMED_BY_ID = [pair for pair in NAMED if pair in BY_ID]


@pytest.mark.parametrize(("method", "path"), BY_ID, ids=map(" ".join, BY_ID))
def test_what_is_anothers_looks_like_what_does_not_exist(
    callers: Callers, method: str, path: str
) -> None:
    absent = callers.ask("operator", method, path, **ABSENT)
    by_id = "payment_id" in path or "intent_id" in path or path == APPROVALS + "/{approval_id}"
    token_too = by_id and row_of(method, path).who == "party"
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


@pytest.mark.parametrize(("method", "path"), NAMED_BY_ID, ids=map(" ".join, NAMED_BY_ID))
def test_nothing_but_the_id_itself_names_a_thing(callers: Callers, method: str, path: str) -> None:
    own = callers.session["id"] if "session_id" in path else AGENT
    own = callers.api.hold(callers.token)["id"] if "payment_id" in path else own
    own = callers.waiting() if "approval_id" in path else own
    own = callers.intent()[0] if "intent_id" in path else own
    own = callers.webhook() if "webhook_id" in path else own
    own = callers.own_key if "key_id" in path else own
    before = callers.api.records()
    for trick, pattern in TRICKS.items():
        text = pattern.format(id=own, ID=own.upper(), half=own[:20])
        answer = callers.api.http.request(
            method,
            "/",
            json=ROUTES[method, path].body,
            headers={"Authorization": f"Bearer {callers.acme}"},
            extensions={"target": re.sub(r"\{\w+\}", lambda _, text=text: text, path).encode()},
        )
        # `..` and a slash reach another route's path at most, where the method may be wrong.
        assert answer.status_code in (404, 405), (trick, answer.text)
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
