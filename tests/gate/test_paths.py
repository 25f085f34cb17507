"""No way of writing a request leads to what is sold without paying for it."""

import asyncio
import socket
from pathlib import Path

import pytest

from api.server import AppServer
from engine.storage.limits import Limits
from tests.gate.stall import Stall
from tests.payments.paying import Till as Facility

SECRET = "what-is-sold"
TARGETS = [
    *("/v1/store/a", "/v1/store/a/", "/v1/store/a//", "//v1/store/a", "/v1//store/a"),
    *("/v1/store//a", "/./v1/store/a", "/v1/./store/a", "/v1/store/./a", "/v1/store/../store/a"),
    *("/v1/x/../store/a", "/v1/x/%2e%2e/store/a", "/%2e/v1/store/a", "/v1/%2e/store/a"),
    *("/v1/store/%2e/a", "/v1/store/%2e%2e/store/a", "/v1%2fstore%2fa", "/v1/store%2fa"),
    *("/v1/store/%61", "/%76%31/%73%74%6f%72%65/%61", "/v1/store/%2561", "/v1/store/a%00"),
    *("/v1/store/a%0a", "/v1/store%0a", "/v1/store/%0d%0aa", "/v1/store/a;x", "/v1/store;x/a"),
    *("/v1;x/store/a", "/v1/store/a?", "/v1/store/a?x", "/v1/store/a%3fx", "/v1/store/a#x"),
    *("/v1/store/a.json", "/v1/store/a%20", "/v1/store/a%09", "/v1/store/A", "/V1/store/a"),
    *("/v1/STORE/a", "/v1/store\\a", "\\v1\\store\\a", "/v1/store/%5ca", "/v1/store/%c0%af/a"),
    *("/v1/store/%ff", "/v1/store/%e2%80%ae", "/v1/store", "/v1/store/", "/v1/store?prefix=a"),
    *("/v1/store?limit=1&keys_only=true", "/v1/store//", "/v1/store/*", "/v1/store/%2a"),
    *("/v1/store/batch/get", "/v1/store/batch/get/", "/v1/store/batch//get", "/v1/store/batch"),
    *("http://stall.test/v1/store/a", "http://other.test:1/v1/store/a", "*"),
    "/v1/store/" + "a" * 1025,
]  # fmt: skip
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "TRACE", "get", "PROPFIND"]
HEADERS = [
    "",
    "X-HTTP-Method-Override: GET\r\nX-Method-Override: GET\r\n",
    "X-Original-URL: /v1/store/a\r\nX-Rewrite-URL: /v1/store/a\r\nX-Forwarded-Prefix: /v1\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "Authorization: Bearer admin\r\nPAYMENT-RESPONSE: eyJzdWNjZXNzIjp0cnVlfQ==\r\n",
]


def answered(address: tuple[str, int], request: str) -> bytes:
    """Everything that comes back."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        heard = b""
        while chunk := connection.recv(65_536):
            heard += chunk
        return heard


@pytest.mark.anyio
async def test_no_spelling_of_a_request_is_served_unpaid(
    facility: Facility, tmp_path: Path
) -> None:
    stall = Stall(facility, tmp_path)
    session = stall.storage.session(stall.payer)
    await session.set_many(dict.fromkeys(("a", "A", "a/", "a\n", "*", "batch/get"), SECRET))

    def ask_everything() -> dict[str, bytes]:
        heard = {}
        with AppServer(stall.app, "127.0.0.1", 0) as server:
            host, _, port = server.url.removeprefix("http://").partition(":")
            asked = [(method, target, "") for method in METHODS for target in TARGETS]
            asked += [(method, "/v1/store/a", more) for method in METHODS for more in HEADERS]
            for method, target, more in asked:
                request = f"{method} {target} HTTP/1.1\r\nHost: stall.test\r\n{more}"
                body = '{"keys":["a"]}'
                if method in ("PUT", "POST", "PATCH"):
                    request += f"Content-Length: {len(body)}\r\n"
                else:
                    body = ""
                if "Upgrade" not in more:
                    request += "Connection: close\r\n"
                heard[request] = answered((host, int(port)), f"{request}\r\n{body}")
        return heard

    answers = await asyncio.to_thread(ask_everything)
    statuses = {request: int(answer.split()[1]) for request, answer in answers.items() if answer}
    assert [request for request, status in statuses.items() if status < 400] == []
    assert 500 not in statuses.values()
    assert {402, 404, 405, 422} <= set(statuses.values())
    assert [request for request, answer in answers.items() if SECRET.encode() in answer] == []
    assert len(answers) == len(METHODS) * (len(TARGETS) + len(HEADERS) - 1)
    assert (stall.transfers(), (await session.list(limit=1)).cursor is not None) == (0, True)
    await stall.close()


@pytest.mark.anyio
async def test_a_body_that_is_longer_than_it_says_is_neither_stored_nor_paid(
    facility: Facility, tmp_path: Path
) -> None:
    stall = Stall(facility, tmp_path, Limits(value_bytes_max=1_000))
    chunk = "3e8\r\n" + "x" * 1_000 + "\r\n"
    bodies = {
        "Transfer-Encoding: chunked": chunk * 2 + "0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5": chunk * 2 + "0\r\n\r\n",
        "Content-Length: 1001": "x" * 1_001,
        "Content-Length: 500": "x" * 100,
        "Content-Length: 5\r\nContent-Length: 6": "123456",
        "Content-Length: -1": "1",
        "Content-Length: 5\r\nContent-Encoding: gzip": "12345",
        "Content-Length: 1\r\nPAYMENT-SIGNATURE: {payment}": "1",
        "Content-Length: 1\r\nX-Other: a\r\n {payment}\r\nX-PAYMENT: {payment}": "1",
    }

    def ask_everything() -> list[int]:
        found = []
        with AppServer(stall.app, "127.0.0.1", 0) as server:
            host, _, port = server.url.removeprefix("http://").partition(":")
            for told, body in bodies.items():
                payment = stall.sign()
                headers = f"PAYMENT-SIGNATURE: {payment}\r\n{told.format(payment=payment)}"
                request = f"PUT /v1/store/a HTTP/1.1\r\nHost: stall.test\r\n{headers}\r\n\r\n"
                heard = answered((host, int(port)), request + body)
                found.append(int(heard.split()[1]) if heard else 0)
        return found

    found = await asyncio.to_thread(ask_everything)
    assert dict(zip(bodies, found, strict=True)) == dict(
        zip(bodies, (413, 413, 413, 0, 400, 400, 422, 402, 402), strict=True)
    )
    session = stall.storage.session(stall.payer)
    assert (stall.transfers(), (await session.list()).entries) == (0, {})
    await stall.close()
