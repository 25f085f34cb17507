"""Payments have two ways through the server, and nobody can tell which one a payment took."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from api.rest.body_limit import BODY_BYTES_MAX
from api.rest.routes import payments
from bench.served import HttpSqliteFastapi
from engine.ledger.payment import Payment
from tests.rest.bodies import (
    ASSIGNED,
    ESCAPES,
    EVERY_TYPE,
    GOOD,
    NOT_JSON,
    SURROGATES,
    TYPES,
    nearly_good,
    texts,
)
from tests.rest.hostile import NOT_AMOUNTS, ZEROS
from tests.rest.hostile import NOT_JSON as NOT_JSON_VALUES
from tests.rest.served import PAYMENTS, SMART, Served
from tests.rest.twins import UNKNOWN_TOKEN, WAYS, Twins, request, status

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
    through_a_proxy = {
        "Via": "1.1 proxy",
        "X-Forwarded-For": "10.0.0.1, 10.0.0.2",
        "X-Forwarded-Proto": "https",
        "X-Request-Id": "1",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
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
        twins.post(PAYMENTS, {"amount": 1}, **through_a_proxy),
    ]
    expected = [201, 201, 201, 409, 402, 402, 200, 402, 200, 201]
    assert [status(answer) for answer in heard] == expected
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


def test_the_benchmark_of_the_routes_reaches_them(twins: Twins, left: list[bytes]) -> None:
    headers = {"X-Session-Token": twins.tokens["plain"], **HttpSqliteFastapi.more_headers}
    sent = request(PAYMENTS, {"amount": 1}, headers)
    assert status(twins.ask(sent)) == 201
    assert left == [sent]


def test_made_up_requests_are_answered_with_the_same_bytes(twins: Twins, api: Served) -> None:
    api.schema.config.generation.update(with_security_parameters=False)
    heard: list[int] = []
    for path in WAYS:
        operation = api.schema[path]["POST"]
        good = {name: value for name, value in GOOD[path].items() if name != "chain"}
        strategy = st.one_of(
            nearly_good(operation.as_strategy(GenerationMode.POSITIVE), good),
            *(operation.as_strategy(mode) for mode in GenerationMode),
        )

        @settings(
            max_examples=80,
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
