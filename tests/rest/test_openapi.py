"""The OpenAPI document is valid, complete and true; and the server behind it is a good one."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.server import Server
from engine.errors import CannotStart
from tests.rest.served import Served, assert_error
from tests.world import World

STORE = "/v1/store"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, known in document["paths"].items()
        for method, operation in known.items()
    ]


@pytest.fixture(scope="module")
def document(api: Served) -> dict[str, Any]:
    answer = api.call("GET", "/openapi.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json()
    return found


def test_the_document_is_valid_and_every_reference_in_it_leads_somewhere(
    api: Served, document: dict[str, Any]
) -> None:
    assert document["openapi"].startswith("3.1.")
    api.schema.validate()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for item in value.values() for found in references(item)]
        return [r for item in value for r in references(item)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_operations_have_names_of_their_own_and_say_what_they_do(document: dict[str, Any]) -> None:
    found = [operation for _, _, operation in operations(document)]
    assert len({operation["operationId"] for operation in found}) == len(found)
    assert all(operation["summary"] and operation["tags"] for operation in found)


def test_every_error_is_documented_in_the_one_shape(document: dict[str, Any]) -> None:
    error = {"$ref": "#/components/schemas/ErrorAnswer"}
    denied = {"$ref": "#/components/schemas/DeniedPayment"}
    for method, path, operation in operations(document):
        if path == "/readyz":
            continue
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                expected = denied if status == "402" and not path.startswith(STORE) else error
                assert schema == expected, (method, path, status)


def test_errors_are_documented_where_they_can_be_heard(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        responses = operation["responses"].keys()
        expected = {"413"}
        if operation.get("security"):
            expected |= {"401", "503"}
        if path.startswith(STORE):
            expected |= {"402", "409", "422", "503"}
        elif "requestBody" in operation:
            expected |= {"415", "422"}
        if "{" in path and method != "put":
            expected |= {"404"}
        if path in ("/api/v1/payments", "/api/v1/ai/smart-payment") and method == "post":
            expected |= {"402", "409"}
        assert responses >= expected, (method, path)


def test_what_needs_a_secret_says_which(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["key"]["scheme"] == "bearer"
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("header", "X-Session-Token")
    public = {path for _, path, operation in operations(document) if not operation.get("security")}
    sold = {path for path in document["paths"] if path.startswith(STORE)}
    log = {"/api/v1/log/checkpoint", "/api/v1/log/consistency"}
    assert public == {"/healthz", "/readyz", "/api/v1/deployment"} | log | sold


TEXTS = {("get", f"{STORE}/{{key}}"), ("get", "/api/v1/log/checkpoint")}


def test_every_good_answer_is_documented_field_by_field(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if path in ("/metrics", "/api/v1/events") or path.endswith("/export"):
            continue
        for status in operation["responses"].keys() & {"200", "201"}:
            content = operation["responses"][status]["content"]
            if (method, path) in TEXTS:
                assert content == {"text/plain": {"schema": {"type": "string"}}}
                continue
            schema = content["application/json"]["schema"]
            schema = schema.get("items", schema)
            documented = "$ref" in schema or path.endswith("/evidence")
            assert documented, (method, path, status)


def test_amounts_and_defaults_are_documented_in_dollars_and_hours(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    limits = {n: known["default"] for n, known in schemas["LimitsBody"]["properties"].items()}
    assert limits == {
        "max_per_transaction": 1000,
        "max_per_day": 5000,
        "max_per_week": 20000,
        "max_per_month": 50000,
        "require_approval_above": 500,
    }
    assert schemas["CreateSession"]["properties"]["duration_hours"]["default"] == 24
    assert "1000000" not in json.dumps(schemas["CreatePayment"])


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_is_served(api: Served, path: str) -> None:
    answer = api.call("GET", path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "/openapi.json" in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_a_method_that_a_route_does_not_have_is_refused_in_the_shape_of_errors(
    api: Served, method: str
) -> None:
    for path in ("/api/v1/payments", "/api/v1/ai/sessions", "/healthz"):
        answer = api.call(method, path, key=api.key)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["Allow"]


def test_a_method_that_is_refused_is_told_all_those_of_the_path(
    api: Served, document: dict[str, Any]
) -> None:
    """RFC 9110, 15.5.6: whichever routes they have, and under every name of the path."""
    slashed = re.compile(r"\\{(agent_id|key)\\}")  # which take slashes, too
    known = [
        (re.sub(r"\\{\w+\\}", "[^/]+", slashed.sub(".+", re.escape(path))), operations)
        for path, operations in document["paths"].items()
    ]
    for template in document["paths"]:
        path = re.sub(r"\{\w+\}", "x", template)
        found = {each.upper() for like, has in known if re.fullmatch(like, path) for each in has}
        answer = api.call("TRACE", path)
        assert answer.headers["Allow"] == ", ".join(sorted(found)), path
    for path, methods in (
        ("/api/v1/payments", "GET, POST"),
        ("/payments", "GET, POST"),
        ("/ai/sessions", "GET, POST"),
        ("/api/v1/sessions", "GET, POST"),
        ("/payment-intents/x", "GET"),
        ("/api/v1/agents/team/x/budget", "DELETE, GET, PUT"),
        ("/openapi.json", "GET, HEAD"),
        ("/studio", "GET, HEAD"),
    ):
        assert api.call("TRACE", path).headers["Allow"] == methods, path


def test_a_path_that_is_no_route_is_a_404_in_the_shape_of_errors(api: Served) -> None:
    for path in ("/api", "/api/v1", "/api/v2/payments", "/.env", "/metric"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_server_can_be_reached_as_soon_as_it_is_entered(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    try:
        for _ in range(5):
            with Server(world.engine, "127.0.0.1", 0) as server:
                host, _, port = server.url.removeprefix("http://").partition(":")
                socket.create_connection((host, int(port))).close()
    finally:
        world.engine.close()


def test_a_port_in_use_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(CannotStart, match=f"TALLYSTICK_PORT: .*127.0.0.1:{port}"):
                Server(world.engine, "127.0.0.1", port)
    finally:
        world.engine.close()


def test_answers_are_sent_at_once_and_not_gathered(api: Served) -> None:
    """With Nagle's algorithm every answer on a kept connection comes 40 ms late."""
    api.call("GET", "/healthz")
    connections = api._server._server.server_state.connections
    sockets = [found.transport.get_extra_info("socket") for found in connections]
    assert sockets
    assert all(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in sockets)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n",
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01 TLS?\r\n\r\n",
    ],
    ids=(
        "no host",
        "length no number",
        "negative length",
        "two lengths",
        "unknown coding",
        "bad chunk",
        "huge header",
        "other protocol",
    ),
)
def test_what_is_not_http_is_refused_and_the_next_caller_is_served(
    api: Served, request_bytes: bytes
) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request_bytes)
        status = connection.recv(65_536).split(b"\r\n")[0]
    assert status.startswith(b"HTTP/1.1 4"), status
    assert httpx.get(api.url + "/healthz").status_code == 200


def test_the_error_shape_is_the_shape_that_the_document_has(api: Served) -> None:
    answer = api.get("/api/v1/payments/none")
    assert_error(answer)
    assert answer.json() == {
        "error": {"code": "payment_not_found", "message": "no such payment"},
        "code": "payment_not_found",
        "message": "no such payment",
    }
