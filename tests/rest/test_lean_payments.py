"""Payments have two ways through the server, and nobody can tell which one a payment took."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from api.rest.body_limit import BODY_BYTES_MAX
from api.rest.lean_payments import HEAD_BYTES_MAX, LeanPayments
from api.rest.routes import payments
from engine.ledger.payment import Payment
from tests.rest.bodies import (
    ASSIGNED,
    ESCAPES,
    EVERY_TYPE,
    GOOD,
    GOOD_BYTES,
    NOT_JSON,
    SURROGATES,
    TYPES,
    texts,
)
from tests.rest.hostile import NOT_AMOUNTS, ZEROS
from tests.rest.hostile import NOT_JSON as NOT_JSON_VALUES
from tests.rest.served import PAYMENTS, SMART, Served
from tests.rest.twins import HEALTH, Connection, Twins, request

WAYS = {PAYMENTS: "amount", SMART: "amount_usd"}
UNKNOWN_TOKEN = "zai_session_" + "0" * 64
AMOUNTS = (
    '"0.000001"',
    "0.000001",
    "1",
    "1.0",
    "1.10",
    '"1.10"',
    "0.1",
    "999999999.999999",
    '"999999999.999999"',
    "123456.789",
)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with Twins(tmp_path_factory.mktemp("twins")) as opened:
        yield opened
        first, second = opened.records()
        assert first == second


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the short way has left to the routes."""
    found: list[bytes] = []
    leave = LeanPayments._leave

    def noted(connection: LeanPayments, data: bytes) -> None:
        found.append(data)
        leave(connection, data)

    monkeypatch.setattr(LeanPayments, "_leave", noted)
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def bodies(path: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Everything that is tried on the routes elsewhere, and what is good."""
    field = WAYS[path]
    # The chain of the good one is one that nobody configured, so with it the answer is a denial.
    good = {name: value for name, value in GOOD[path].items() if name != "chain"}
    yield GOOD[path], {}
    for value in (*AMOUNTS, *NOT_AMOUNTS.values(), *ZEROS.values(), *NOT_JSON_VALUES):
        yield f'{{"{field}":{value},"merchant_id":"books"}}'.encode(), {}
    yield good, {}
    for name in good:
        yield {key: value for key, value in good.items() if key != name}, {}
        for value in EVERY_TYPE:
            yield good | {name: value}, {}
    for name in ASSIGNED:
        yield good | {name: 1}, {}
    for escape in (*ESCAPES, *SURROGATES, r"\ud83d\ude00", r"\u00e9"):
        for _, body in texts(good):
            yield json.dumps(body).replace(r"\u2022", escape).encode(), {}
        metadata = f'{{"{field}":1,"metadata":{{"{escape}":["{escape}"]}}}}'
        yield metadata.encode(), {}
    for content in NOT_JSON.values():
        yield content, {}
    for content in (b"", b"null", b"[]", b"[{}]", b'"text"', b"1", b"true", b"NaN", b"1.5", b"{}"):
        yield content, {}
    for levels in (29, 30, 31, 500):
        nested = "[" * levels + "]" * levels
        yield f'{{"{field}":1,"metadata":{{"a":{nested}}}}}'.encode(), {}
        yield f'{{"{field}":1,"description":"{nested}"}}'.encode(), {}
    for number in ("NaN", "-0", "-0.0", "1e5", "-1e400", "9" * 400, str(2**70), "0.1", "1e-7"):
        yield f'{{"{field}":1,"metadata":{{"n":{number}}}}}'.encode(), {}
    for content_type in (*TYPES, "application/json; charset=utf-8", "Application/JSON"):
        yield good, {"Content-Type": content_type}
    spaces = BODY_BYTES_MAX - len(json.dumps({field: 1}))
    for more in (-1, 0, 1, 100_000):
        yield json.dumps({field: 1}).encode() + b" " * (spaces + more), {}
    yield {field: 1, "metadata": {"a": "x" * 16_000}}, {}
    yield {field: 1, "metadata": {"a": "x" * 17_000}}, {}


@pytest.mark.parametrize("path", WAYS)
def test_every_body_is_answered_with_the_same_bytes(twins: Twins, path: str) -> None:
    heard = [status(twins.post(path, body, **headers)) for body, headers in bodies(path)]
    good = 201 if path == PAYMENTS else 200
    assert {good, 402, 413, 415, 422} <= set(heard)
    assert heard.count(good) > 50
    assert len(heard) > 300


CREDENTIALS: dict[str, Callable[[Twins], dict[str, str]]] = {
    "nothing": lambda t: {},
    "token": lambda t: {"X-Session-Token": t.tokens["plain"]},
    "empty token": lambda t: {"X-Session-Token": ""},
    "empty token, bearer": lambda t: {
        "X-Session-Token": "",
        "Authorization": f"Bearer {t.tokens['plain']}",
    },
    "unknown token": lambda t: {"X-Session-Token": UNKNOWN_TOKEN},
    "longer token": lambda t: {"X-Session-Token": t.tokens["plain"] + "0"},
    "token in capitals": lambda t: {"X-Session-Token": t.tokens["plain"].upper()},
    "key as token": lambda t: {"X-Session-Token": t.key},
    "token as bearer": lambda t: {"Authorization": f"Bearer {t.tokens['plain']}"},
    "spaces before the bearer": lambda t: {"Authorization": f"Bearer   {t.tokens['plain']}"},
    "bearer": lambda t: {"Authorization": "Bearer"},
    "bearer and a space": lambda t: {"Authorization": "Bearer "},
    "small bearer": lambda t: {"Authorization": f"bearer {t.tokens['plain']}"},
    "basic": lambda t: {"Authorization": f"Basic {t.key}", "X-Session-Token": t.tokens["plain"]},
    "key": lambda t: {"Authorization": f"Bearer {t.key}"},
    "key and token": lambda t: {
        "Authorization": f"Bearer {t.key}",
        "X-Session-Token": t.tokens["plain"],
    },
    "other's key and token": lambda t: {
        "Authorization": f"Bearer {t.other_key}",
        "X-Session-Token": t.tokens["plain"],
    },
    "unknown key and token": lambda t: {
        "Authorization": "Bearer zfi_test_" + "0" * 64,
        "X-Session-Token": t.tokens["plain"],
    },
    "two tokens": lambda t: {
        "Authorization": f"Bearer {t.tokens['listed']}",
        "X-Session-Token": t.tokens["plain"],
    },
}


@pytest.mark.parametrize("who", CREDENTIALS)
@pytest.mark.parametrize("path", WAYS)
def test_every_caller_is_answered_with_the_same_bytes(twins: Twins, path: str, who: str) -> None:
    credentials = CREDENTIALS[who](twins)
    tokens = (None, "", twins.tokens["plain"], twins.tokens["listed"], UNKNOWN_TOKEN, twins.key)
    for token in tokens if path == SMART else (None,):
        extra = {} if token is None else {"session_token": token}
        body = {WAYS[path]: 1, "merchant_id": "books"} | extra
        twins.ask(request(path, body, credentials))
        twins.ask(request(path, body | {"unknown": 1}, credentials))
        twins.ask(request(path, b"{", credentials))


@pytest.mark.parametrize("path", WAYS)
def test_every_denial_has_the_same_bytes(twins: Twins, path: str) -> None:
    amount = WAYS[path]
    heard = [
        status(twins.post(path, {amount: 1, "merchant_id": "books"} | changes, token=token))
        for token in twins.tokens
        for changes in (
            {},
            {amount: "99.999999"},
            {amount: 1000},
            {"merchant_id": "casino"},
            {"merchant_id": None},
            {"token": "DOGE"},
            {"token": "usdc"},
            {"chain": "eip155:1"},
            {"chain": "no chain"},
        )
    ]
    assert heard.count(402) > 15


@pytest.mark.parametrize("path", WAYS)
def test_keys_replays_and_conflicts_have_the_same_bytes(twins: Twins, path: str) -> None:
    amount = WAYS[path]
    body = {amount: 1, "merchant_id": "books", "metadata": {"a": 0.1}, "description": "é"}
    first = twins.post(path, body, Idempotency_Key=path)
    again = twins.post(path, body, Idempotency_Key=path)
    assert b"idempotent-replayed: true" in again
    assert again.partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]
    twins.post(path, body, X_Idempotency_Key=path)
    twins.post(path, body, X_Idempotency_Key=path, Idempotency_Key=path)
    twins.post(path, body, X_Idempotency_Key=path, Idempotency_Key="other")
    other: Any = {"b": 1} if path == SMART else "buyer@example.org"
    for field, value in {
        amount: 2,
        "merchant_id": "casino",
        "token": "DOGE",
        "metadata": {"a": 2},
        "description": None,
        ("product_details" if path == SMART else "customer_email"): other,
    }.items():
        assert status(twins.post(path, body | {field: value}, Idempotency_Key=path)) == 409
    for key in ("", "k" * 255, "k" * 256, " k ", "a,b", "é", "k" * 7_000):
        twins.post(path, body, Idempotency_Key=key)
        twins.post(path, body, X_Idempotency_Key=key)


def test_what_is_plain_never_reaches_the_routes(twins: Twins, left: list[bytes]) -> None:
    key = {"Authorization": f"Bearer {twins.key}"}
    as_the_client_sends = {
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "keep-alive",
        "User-Agent": "python-httpx/0.28.1",
    }
    heard = [
        twins.post(PAYMENTS, {"amount": 1}),
        twins.post(PAYMENTS, {"amount": 1}, Idempotency_Key="plain"),
        twins.post(PAYMENTS, {"amount": 1}, Idempotency_Key="plain"),
        twins.post(PAYMENTS, {"amount": 2}, Idempotency_Key="plain"),
        twins.post(PAYMENTS, {"amount": 1}, token="revoked"),
        twins.post(PAYMENTS, GOOD[PAYMENTS]),
        twins.post(SMART, {"amount_usd": 1}),
        twins.ask(
            request(SMART, GOOD[SMART] | {"session_token": twins.tokens["plain"]}, key),
        ),
        twins.post(SMART, {"amount_usd": 1}, **as_the_client_sends),
    ]
    assert [status(answer) for answer in heard] == [201, 201, 201, 409, 402, 402, 200, 402, 200]
    assert left == []


def test_what_is_refused_is_refused_by_the_routes(twins: Twins, left: list[bytes]) -> None:
    sent = [
        request(PAYMENTS, {"amount": 0}, {"X-Session-Token": twins.tokens["plain"]}),
        request(PAYMENTS, {"amount": 1}, {"X-Session-Token": UNKNOWN_TOKEN}),
        request(PAYMENTS, {"amount": 1, "unknown": 1}),
        request(SMART, b"{"),
    ]
    for one in sent:
        assert status(twins.ask(one)) in (401, 422)
    assert left == sent


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


def test_made_up_requests_are_answered_with_the_same_bytes(twins: Twins, api: Served) -> None:
    api.schema.config.generation.update(with_security_parameters=False)
    heard: list[int] = []
    for path in WAYS:
        operation = api.schema[path]["POST"]
        strategy = st.one_of(operation.as_strategy(mode) for mode in GenerationMode)

        @settings(
            max_examples=200,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def fuzz(case: Any) -> None:
            made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost"))
            prepared = requests.Session().prepare_request(made)
            content = prepared.body or b""
            content = content.encode() if isinstance(content, str) else content
            headers = dict(prepared.headers)
            headers |= {"X-Session-Token": twins.tokens["plain"]}
            headers.pop("Content-Length", None)
            heard.append(status(twins.ask(request(prepared.path_url, content, headers))))

        fuzz()
    assert {200, 201, 422} <= set(heard)


@pytest.fixture
def own_twins(tmp_path: Path) -> Iterator[Twins]:
    """Two that a test may break."""
    with Twins(tmp_path) as opened:
        yield opened


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_something_is_broken_it_is_told_with_the_same_bytes(
    own_twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = own_twins
    twins.post(PAYMENTS, {"amount": 1})

    def broken(payment: Payment) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as while_broken:
        while_broken.setattr(payments, "payment_answer", broken)
        assert status(twins.post(PAYMENTS, {"amount": 1})) == 500
    assert status(twins.post(PAYMENTS, {"amount": 1})) == 201

    twins.damage("ALTER TABLE sessions RENAME TO gone")
    assert status(twins.post(PAYMENTS, {"amount": 1}, token="listed")) == 500
    twins.damage("ALTER TABLE gone RENAME TO sessions")
    twins.damage("ALTER TABLE outbox RENAME TO gone")
    for path, amount in WAYS.items():
        for _ in range(2):
            assert status(twins.post(path, {amount: 1}, Idempotency_Key=path)) == 503


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
