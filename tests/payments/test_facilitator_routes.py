"""The facilitator over HTTP: the SDK's own client and middleware, and bodies of all kinds."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import httpx
import pytest
import requests
import schemathesis
from fastapi import FastAPI, Request, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from x402 import x402Client, x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.middleware.fastapi import payment_middleware
from x402.mechanisms.evm.exact import register_exact_evm_client, register_exact_evm_server

from api.facilitator.app import create_facilitator_app
from api.rest.body_limit import BODY_BYTES_MAX
from api.server import AppServer
from engine.chain.gateway import ChainUnavailable
from tests.anvil_world import AnvilWithContracts
from tests.payments.paying import PAYEE, Till

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@contextmanager
def served(till: Till) -> Iterator[httpx.Client]:
    """A client of the facilitator behind a real socket."""
    with (
        AppServer(create_facilitator_app(till.facilitator), "127.0.0.1", 0) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def http(till: Till) -> Iterator[httpx.Client]:
    with served(till) as client:
        yield client


@pytest.fixture(scope="module")
def busy(busy_till: Till) -> Iterator[httpx.Client]:
    """Shared by tests that have nothing settled."""
    with served(busy_till) as client:
        yield client


def shop(till: Till, facilitator: HTTPFacilitatorClient, flow: str) -> tuple[FastAPI, list[str]]:
    """A resource server that sells a book for 500 units, with the SDK's middleware."""
    app, delivered = FastAPI(), []
    server = x402ResourceServer(facilitator)
    register_exact_evm_server(server, till.network)
    extra = {"name": till.domain.name, "version": till.domain.version}
    price = {"amount": "500", "asset": till.domain.token, "extra": extra}
    option: dict[str, Any] = {
        "scheme": "exact",
        "network": till.network,
        "payTo": PAYEE,
        "price": price,
        "maxTimeoutSeconds": 300,
    }
    if flow == "upfront":
        option["extra"] = {"paymentFlow": "upfront"}
    pays = payment_middleware({"GET /book": {"accepts": option}}, server)

    @app.middleware("http")
    async def paid(request: Request, call_next: Any) -> Response:
        return await pays(request, call_next)

    @app.get("/book")
    async def book() -> dict[str, str]:
        delivered.append("book")
        return {"title": "A tally of sticks"}

    return app, delivered


@pytest.mark.parametrize("flow", ["authorization", "upfront"])
def test_the_sdk_sells_and_buys_through_it_and_a_replay_buys_nothing(
    till: Till, http: httpx.Client, flow: str
) -> None:
    facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=str(http.base_url)))
    app, delivered = shop(till, facilitator, flow)
    client = x402Client()
    register_exact_evm_client(client, till.payer)
    client.set_spend_controls(False)
    sent: list[str] = []

    class Wire(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            sent.extend(request.headers.get_list("PAYMENT-SIGNATURE"))
            return await super().handle_async_request(request)

    async def buy() -> tuple[httpx.Response, httpx.Response]:
        paying = x402AsyncTransport(client, Wire(app=app))
        async with httpx.AsyncClient(transport=paying, base_url="http://shop.test") as buyer:
            bought = await buyer.get("/book")
        async with httpx.AsyncClient(transport=Wire(app=app), base_url="http://shop.test") as thief:
            replay = await thief.get("/book", headers={"PAYMENT-SIGNATURE": sent[0]})
        await facilitator.aclose()
        return bought, replay

    bought, replay = asyncio.run(buy())
    assert (bought.status_code, bought.json()) == (200, {"title": "A tally of sticks"})
    assert replay.status_code == 402
    assert (delivered, till.transfers()) == (["book"], 1)


def test_the_answers_are_those_of_the_sdk_by_their_aliases(till: Till, http: httpx.Client) -> None:
    request = till.request()
    assert http.post("/verify", json=request).json() == {
        "isValid": True,
        "payer": till.payer.address.lower(),
    }
    answer = http.post("/settle", json=request).json()
    assert answer.keys() == {"success", "payer", "transaction", "network", "amount"}
    again = http.post("/settle", json=request)
    assert again.status_code == 200
    assert again.json()["errorReason"] == "duplicate_settlement"
    assert again.json()["transaction"] == answer["transaction"]
    assert http.get("/supported").json()["kinds"] == [
        {"x402Version": 2, "scheme": "exact", "network": till.network}
    ]


def test_nobody_waits_for_a_chain_that_others_wait_for(
    anvil: AnvilWithContracts, anvil_till: Till
) -> None:
    till = anvil_till
    bodies = [till.request() for _ in range(4)]

    async def all_at_once(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            waiting = [asyncio.create_task(client.post("/settle", json=body)) for body in bodies]
            while till.gateway.transaction_count(till.gas_payer.address.lower(), pending=True) < 4:
                assert (await client.get("/healthz")).status_code == 200
            assert not any(task.done() for task in waiting)
            anvil.mine()
            return await asyncio.gather(*waiting)

    with served(till) as client, anvil.idle():
        answers = asyncio.run(all_at_once(str(client.base_url)))
    assert [answer.json()["success"] for answer in answers] == [True] * 4
    assert till.transfers() == 4


def test_a_chain_that_cannot_be_asked_is_a_503_with_a_reason(
    anvil_till: Till,
) -> None:
    def silent(*_: Any, **__: Any) -> Any:
        raise ChainUnavailable("nobody answers")

    with served(anvil_till) as client, mock.patch.object(anvil_till.gateway, "call", silent):
        for path in ("/verify", "/settle"):
            answer = client.post(path, json=anvil_till.request())
            assert (answer.status_code, answer.json()["code"]) == (503, "chain_unavailable")


BAD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "null": b"null",
    "a number": b"1e5",
    "no fields": b"{}",
    "another encoding": "{}".encode("utf-16"),
    "a key twice": b'{"x402Version": 2, "x402Version": 2}',
    "very deep": b"[" * 5_000 + b"]" * 5_000,
    "a number without end": b'{"x402Version": ' + b"2" * 5_000 + b"}",
}


@pytest.mark.parametrize("path", ["/verify", "/settle"])
@pytest.mark.parametrize("body", BAD.values(), ids=list(BAD))
def test_what_is_no_request_is_a_422_that_names_the_field(
    busy: httpx.Client, path: str, body: bytes
) -> None:
    answer = busy.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["details"]["field"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("x402Version", 1, "x402Version"),
        ("x402Version", "2", "x402Version"),
        ("paymentPayload", "text", "paymentPayload"),
        ("paymentPayload.x402Version", 1, "paymentPayload.x402Version"),
        ("paymentPayload.payload", [], "paymentPayload.payload"),
        ("paymentRequirements.amount", 100, "paymentRequirements.amount"),
        ("paymentRequirements.maxTimeoutSeconds", "300", "paymentRequirements.maxTimeoutSeconds"),
        ("paymentRequirements.extra", "name", "paymentRequirements.extra"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(
    busy_till: Till, busy: httpx.Client, path: str, value: Any, field: str
) -> None:
    request = busy_till.request()
    *way, last = path.split(".")
    at = request
    for step in way:
        at = at[step]
    at[last] = value
    answer = busy.post("/settle", json=request)
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, field)


def test_another_content_type_and_a_huge_body_are_refused(
    busy_till: Till, busy: httpx.Client
) -> None:
    body = json.dumps(busy_till.request()).encode()
    assert (
        busy.post("/settle", content=body, headers={"Content-Type": "text/plain"}).status_code
        == 415
    )
    huge = body[:-1] + b',"more":"' + b"x" * BODY_BYTES_MAX + b'"}'
    answer = busy.post("/settle", content=huge, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_what_else_is_sent_along_is_ignored(till: Till, http: httpx.Client) -> None:
    assert http.post("/settle", json=till.request() | {"more": [1.5]}).json()["success"]


@pytest.mark.parametrize("path", ["/verify", "/settle"])
def test_made_up_requests_hear_what_is_documented(
    busy_till: Till, busy: httpx.Client, path: str
) -> None:
    schema = schemathesis.openapi.from_dict(busy.get("/openapi.json").json())
    schema.validate()
    operation = schema[path]["POST"]
    strategies = [operation.as_strategy(mode) for mode in GenerationMode]
    statuses = set()
    with requests.Session() as session:

        @settings(
            max_examples=15,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(strategies))
        def fuzz(case: Any) -> None:
            answer = case.call(base_url=str(busy.base_url).rstrip("/"), session=session)
            case.validate_response(answer, checks=CHECKS)
            statuses.add(answer.status_code)

        fuzz()
    assert statuses >= {200, 422}
