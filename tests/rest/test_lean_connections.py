"""A connection on which payments are asked for: its bytes, its pieces, its end."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from api.rest.lean_payments import HEAD_BYTES_MAX, LeanPayments
from tests.rest.bodies import GOOD_BYTES
from tests.rest.served import PAYMENTS, Served
from tests.rest.twins import HEALTH, UNKNOWN_TOKEN, WAYS, Connection, Twins, request, status


def wire(token: str) -> Iterator[tuple[str, bytes]]:
    """Requests that are not plain, or only just."""
    good = request(PAYMENTS, GOOD_BYTES, {"X-Session-Token": token})
    line, headers = good.split(b"\r\n", 1)
    yield "another version", b"POST /api/v1/payments HTTP/1.0\r\n" + headers
    yield "version two", b"POST /api/v1/payments HTTP/2.0\r\n" + headers
    yield "no version", b"POST /api/v1/payments\r\n" + headers
    yield "two spaces", b"POST  /api/v1/payments HTTP/1.1\r\n" + headers
    yield "space at the end", line + b" \r\n" + headers
    yield "small method", b"post /api/v1/payments HTTP/1.1\r\n" + headers
    yield "GET", b"GET /api/v1/payments HTTP/1.1\r\n" + headers
    yield "query", b"POST /api/v1/payments?page=1 HTTP/1.1\r\n" + headers
    yield "encoded path", b"POST /api/v1/payment%73 HTTP/1.1\r\n" + headers
    yield "whole URL", b"POST http://localhost/api/v1/payments HTTP/1.1\r\n" + headers
    yield "slash at the end", b"POST /api/v1/payments/ HTTP/1.1\r\n" + headers
    yield "empty line before", b"\r\n" + good
    yield "line feeds only", good.replace(b"\r\n", b"\n")
    yield "a lone line feed", good.replace(b"\r\nContent-Type", b"\nContent-Type")
    yield "a carriage return", good.replace(b"Host: localhost", b"Host: local\rhost")
    yield "spaces after the body", good + b"  "
    yield "an empty line after the body", good + b"\r\n"
    yield "no host", good.replace(b"Host: localhost\r\n", b"")
    yield "no length", good.replace(b"Content-Length: 12\r\n", b"")
    yield "no body", request(PAYMENTS, b"", {"X-Session-Token": token})
    for name, more in {
        "two hosts": b"Host: other",
        "two types": b"Content-Type: text/plain",
        "the same type twice": b"Content-Type: application/json",
        "the same length twice": b"Content-Length: 12",
        "another length": b"Content-Length: 13",
        "lengths in one": b"Content-Length: 12, 12",
        "chunked": b"Transfer-Encoding: chunked",
        "identity": b"Transfer-Encoding: identity",
        "hidden chunked": b"Transfer-Encoding : chunked",
        "folded": b"Accept: a\r\n b",
        "folded key": b"Idempotency-Key: a\r\n\tb",
        "two tokens": b"X-Session-Token: " + UNKNOWN_TOKEN.encode(),
        "two small tokens": b"x-session-token: " + UNKNOWN_TOKEN.encode(),
        "two keys": b"Idempotency-Key: a\r\nIdempotency-Key: b",
        "no colon": b"Accept",
        "no name": b": a",
        "space before the colon": b"Accept : a",
        "nul": b"Accept: a\0b",
        "nul in a key": b"Idempotency-Key: a\0b",
        "escape in a key": b"Idempotency-Key: a\x1bb",
        "del in a key": b"Idempotency-Key: a\x7fb",
        "latin key": b"Idempotency-Key: caf\xe9",
        "utf-8 key": "Idempotency-Key: café".encode(),
        "tab around a key": b"Idempotency-Key:\tk-tab\t",
        "tab in a key": b"Idempotency-Key: a\tb",
        "spaces around a key": b"Idempotency-Key:   k-spaces   ",
        "no space before a key": b"Idempotency-Key:k-nospace",
        "empty key": b"Idempotency-Key:",
        "comma in a key": b"Idempotency-Key: a, b",
        "capitals": b"IDEMPOTENCY-KEY: k-capitals",
        "underscores": b"Idempotency_Key: k",
        "close": b"Connection: close",
        "Close": b"Connection: Close",
        "keep-alive": b"Connection: Keep-Alive",
        "two connections": b"Connection: keep-alive, close",
        "another connection": b"Connection: keep-alive\r\nConnection: close",
        "upgrade": b"Connection: upgrade\r\nUpgrade: h2c",
        "websocket": b"Connection: upgrade\r\nUpgrade: websocket",
        "expectation": b"Expect: 200-maybe",
        "encoding": b"Content-Encoding: gzip",
        "override": b"X-HTTP-Method-Override: GET",
        "forwarded": b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https",
        "trace": b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cookie": b"Cookie: a=b",
        "long header": b"User-Agent: " + b"a" * HEAD_BYTES_MAX,
        "longer header": b"User-Agent: " + b"a" * 200_000,
        "many headers": b"\r\n".join(b"X-%d: a" % number for number in range(200)),
    }.items():
        yield name, line + b"\r\n" + more + b"\r\n" + headers
    for length in (b"0", b"+12", b"-12", b"0012", b"000012", b"1_2", b"12.0", b"0xc", b"", b"12 "):
        named = good.replace(b"Content-Length: 12", b"Content-Length: " + length)
        yield f"length {length!r}", named
    yield "a length in other digits", good.replace(b": 12\r", ": \u0661\u0662\r".encode())


WIRE = dict(wire(UNKNOWN_TOKEN))


@pytest.mark.parametrize("how", WIRE)
def test_every_request_on_the_wire_is_answered_with_the_same_bytes(twins: Twins, how: str) -> None:
    sent = dict(wire(twins.tokens["plain"]))[how]
    before = twins.records()
    assert twins.ask_last(sent)
    grown = [after - earlier for after, earlier in zip(twins.records(), before, strict=True)]
    assert grown[0] == grown[1]


def test_a_request_may_come_in_any_two_pieces(twins: Twins) -> None:
    sent = request(PAYMENTS, {"amount": 1}, {"X-Session-Token": twins.tokens["plain"]})
    for cut in range(1, len(sent)):
        assert status(twins.ask(sent[:cut], sent[cut:])) == 201


def test_a_body_that_comes_later_is_waited_for_on_the_short_way(
    twins: Twins, left: list[bytes]
) -> None:
    """Clients send the head and the body apart."""
    for path, amount in WAYS.items():
        sent = request(path, {amount: 1}, {"X-Session-Token": twins.tokens["plain"]})
        head, _, body = sent.partition(b"\r\n\r\n")
        assert status(twins.ask(head + b"\r\n\r\n", body[:3], body[3:])) in (200, 201)
    assert left == []


def test_requests_that_are_sent_at_once_are_answered_in_their_order(twins: Twins) -> None:
    credentials = {"X-Session-Token": twins.tokens["plain"]}
    plain = [request(PAYMENTS, {"amount": n}, credentials) for n in (1, 2, 3)]
    other = HEALTH
    refused = request(PAYMENTS, {"amount": 0}, credentials)
    half = len(plain[1]) // 2
    for parts in (
        [b"".join(plain)],
        [plain[0] + other, plain[1] + other + other + plain[2]],
        [other + plain[0] + plain[1]],
        [plain[0], plain[1], plain[2], other],
        [plain[0], other, refused, plain[1], other],
        [plain[0] + plain[1][:half], plain[1][half:] + refused],
        [plain[0], plain[1][:half], plain[1][half:], plain[2]],
        [refused + plain[0], plain[1]],
    ):
        count = sum(b"".join(parts).count(start) for start in (b"POST /", b"GET /"))
        for connection in twins.connections:
            connection.send(*parts)
        for _ in range(count):
            lean, routes = (connection.answer() for connection in twins.connections)
            assert lean == routes


def protocol(connection: Connection) -> LeanPayments:
    """The server's end of a connection, after something was asked on it."""
    own = connection.socket.getsockname()
    found = [
        end
        for end in connection.server._server.server_state.connections
        if isinstance(end, LeanPayments) and end.client == own
    ]
    assert len(found) == 1
    return found[0]


def until(true: Callable[[], bool]) -> None:
    while not true():
        threading.Event().wait(0.001)


def test_a_connection_is_closed_when_idle_and_not_while_it_is_answered(own_twins: Twins) -> None:
    connection = own_twins.connections[0]
    sent = request(PAYMENTS, {"amount": 1}, {"X-Session-Token": own_twins.tokens["plain"]})
    connection.exchange(sent)
    end = protocol(connection)
    until(lambda: end.timeout_keep_alive_task is not None)
    gate = threading.Event()
    own_twins.worlds[0].engine.writer.submit(lambda batch: gate.wait())
    connection.send(sent[:-3])
    until(lambda: end.timeout_keep_alive_task is None)
    connection.send(sent[-3:])
    until(lambda: end._answering)
    assert end.timeout_keep_alive_task is None
    gate.set()
    assert status(connection.answer()) == 201
    until(lambda: end.timeout_keep_alive_task is not None)


def test_a_server_that_stops_answers_what_was_begun(own_twins: Twins) -> None:
    """Asked in whole, asked in half, and idle."""
    sent = request(PAYMENTS, {"amount": 1}, {"X-Session-Token": own_twins.tokens["plain"]})
    asked, half, idle = (Connection(own_twins.servers[0]) for _ in range(3))
    ends = []
    for connection in (asked, half, idle):
        connection.exchange(sent)
        ends.append(protocol(connection))
    gate = threading.Event()
    own_twins.worlds[0].engine.writer.submit(lambda batch: gate.wait())
    asked.send(sent)
    half.send(sent[:-3])
    until(lambda: ends[0]._answering and bool(ends[1]._kept))
    own_twins.servers[0]._server.should_exit = True
    assert idle.everything(again=False) == b""
    until(lambda: ends[0]._last and not ends[1]._kept)
    half.send(sent[-3:])
    gate.set()
    assert status(asked.everything(again=False)) == 201
    assert status(half.everything(again=False)) == 201


def test_answers_that_nobody_reads_are_not_piled_up(own_twins: Twins) -> None:
    body = {"amount": 1, "metadata": {"a": "x" * 16_000}}
    sent = request(PAYMENTS, body, {"X-Session-Token": own_twins.tokens["plain"]})
    connection = own_twins.connections[0]
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.exchange(sent)
    end = protocol(connection)
    there = end.transport.get_extra_info("socket")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    sending = threading.Thread(target=lambda: connection.send(*[sent] * 12))
    sending.start()
    until(lambda: end.flow.write_paused)
    own_twins.worlds[0].engine.writer.call(lambda batch: None)
    assert end.transport.get_write_buffer_size() < 2**16 + 2 * len(sent)
    assert [status(connection.answer()) for _ in range(12)] == [201] * 12
    sending.join()


def test_a_caller_that_leaves_while_it_is_decided_harms_nobody(own_api: Served) -> None:
    token = own_api.session()["session_token"]
    own_api.hold(token)
    before = own_api.records()
    sent = request(PAYMENTS, {"amount": 1}, {"X-Session-Token": token})
    host, _, port = own_api.url.removeprefix("http://").partition(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert own_api.hold(token)["state"] == "held"
    assert before < own_api.records() <= before + 21
