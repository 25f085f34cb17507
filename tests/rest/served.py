"""A served installation, and a client that holds every answer against the OpenAPI document."""

import copy
import functools
import re
from pathlib import Path
from typing import Any, Self, cast

import httpx
import schemathesis

from api.rest.app import create_app
from api.server import Server
from engine.engine import Engine
from tests.world import WORKSPACE, World

SESSIONS = "/api/v1/ai/sessions"
PAYMENTS = "/api/v1/payments"
APPROVALS = "/api/v1/approvals"
SMART = "/api/v1/ai/smart-payment"
FRAMEWORK_PATHS = ("/", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
NO_LIMITS = dict.fromkeys(
    (
        "max_per_transaction",
        "max_per_day",
        "max_per_week",
        "max_per_month",
        "require_approval_above",
    )
)

_absent: Any = object()


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document, which is the same for every engine; to be read only."""
    return create_app(cast("Engine", None)).openapi()


class Served:
    """A world behind a real socket. `answers` keeps every answer that was heard."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.world = World(directory, **changes)
        self.workspace_id = WORKSPACE
        self.key: str = self.world.operator_key or ""
        self.openapi = document()
        self.schema = schemathesis.openapi.from_dict(self.openapi)
        self._templates = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path.replace("{agent_id}", ".+"))), path)
            for path in self.openapi["paths"]
        ]
        self.answers: list[httpx.Response] = []
        self._server = Server(self.world.engine, "127.0.0.1", 0)
        self.url = self._server.url
        self.http = httpx.Client(
            base_url=self.url,
            timeout=30,
            trust_env=False,
            event_hooks={"response": [self._conforms]},
        )

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036 (handed on)
        self.http.close()
        self._server.__exit__(*error)
        self.world.engine.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = _absent,
        *,
        key: str | None = None,
        token: str | None = None,
        raw: str | bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send exactly this; a key goes into Authorization, a token into X-Session-Token."""
        sent = {} if key is None else {"Authorization": f"Bearer {key}"}
        sent |= {} if token is None else {"X-Session-Token": token}
        if raw is not None:
            sent["Content-Type"] = "application/json"
            return self.http.request(method, path, content=raw, headers=sent | (headers or {}))
        json = {} if body is _absent else {"json": body}
        return self.http.request(method, path, headers=sent | (headers or {}), **json)

    def get(self, path: str, **how: Any) -> httpx.Response:
        """GET as the operator, unless told otherwise."""
        return self.call("GET", path, **({"key": self.key} | how))

    def post(self, path: str, body: Any = _absent, **how: Any) -> httpx.Response:
        """POST as the operator, unless told otherwise."""
        return self.call("POST", path, body, **({"key": self.key} | how))

    def session(self, *, key: str | None = None, **fields: Any) -> dict[str, Any]:
        """A session without an on-chain identity, as it was answered; no limits unless given."""
        body = {"agent_id": "bot", "user_wallet": "wallet", "limits": NO_LIMITS} | fields
        answer = self.post(SESSIONS, body, key=key or self.key)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def hold(self, token: str, amount: Any = 10, **fields: Any) -> dict[str, Any]:
        """A held payment, as it was answered."""
        answer = self.pay(token, amount, **fields)
        assert answer.status_code == 201, answer.text
        held: dict[str, Any] = answer.json()
        return held

    def pay(
        self, token: str, amount: Any = 10, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Ask for a payment with a session token."""
        body = {"amount": amount, "merchant_id": "books"} | fields
        return self.call("POST", PAYMENTS, body, token=token, headers=headers)

    def workspace(self, name: str) -> str:
        """Another tenant; returns the key of its operator."""
        answer = self.post("/api/v1/workspaces", {"id": name, "name": name})
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["full_key"]
        return key

    def tenant(self, name: str) -> Self:
        """The same installation, for the operator of another workspace."""
        other = copy.copy(self)
        other.workspace_id, other.key = name, self.workspace(name)
        return other

    def records(self) -> int:
        """How many records the log has."""
        count: int = self.world.engine.ready()["records"]
        return count

    def _conforms(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(response)
        path = response.url.path
        if path in FRAMEWORK_PATHS:
            return
        operation = self._operation(response.request.method, path)
        if operation is None:
            assert response.status_code in (404, 405, 413, 501), response
            assert_error(response)
            return
        assert str(response.status_code) in operation.definition.raw["responses"], (
            f"{operation.label} does not document {response.status_code}: {response.text}"
        )
        operation.validate_response(response)
        if response.status_code >= 400 and path != "/readyz":
            assert_error(response)

    def _operation(self, method: str, path: str) -> Any:
        for pattern, template in self._templates:
            if pattern.fullmatch(path) and method.lower() in self.openapi["paths"][template]:
                return self.schema[template][method]
        return None


def assert_error(response: httpx.Response) -> None:
    """The one shape of errors: as an object and at the top, and both say the same."""
    body = response.json()
    assert body["error"].keys() <= {"code", "message", "details"}
    assert {name: body[name] for name in body["error"]} == body["error"]
    assert body["code"]
    assert body["message"]


def refused(response: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    """The answer is this refusal, and names this field."""
    found = response.json()
    heard = (response.status_code, found.get("code"), found.get("details", {}).get("field"))
    assert heard == (status, code, field), response.text
