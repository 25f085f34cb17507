"""Bodies above 64 KiB are refused before anything is done, and without end they are cut off."""

import contextlib
import http.client
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.rest.served import PAYMENTS, SESSIONS, SMART, Served, refused

BODY_BYTES_MAX = 65_536
GOOD = b'{"amount":1}'
ROUTES = (
    SESSIONS,
    SESSIONS + "/id/consent",
    SESSIONS + "/id/revoke",
    SMART,
    PAYMENTS,
    PAYMENTS + "/id/capture",
    PAYMENTS + "/id/void",
    "/api/v1/agents",
    "/api/v1/workspaces",
    "/api/v1/log/anchor",
    "/api/v1/chain/resume",
    "/nowhere",
)


@pytest.fixture(scope="module")
def token(api: Served) -> str:
    text: str = api.session()["session_token"]
    return text


def padded(size: int) -> bytes:
    """A good payment of so many bytes."""
    return GOOD[:-1] + b" " * (size - len(GOOD)) + b"}"


def test_a_body_may_have_64_kib(api: Served, token: str) -> None:
    answer = api.call("POST", PAYMENTS, raw=padded(BODY_BYTES_MAX), token=token)
    assert answer.status_code == 201


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 1_000_000])
@pytest.mark.parametrize("path", ROUTES)
def test_a_larger_body_is_refused_before_anything_is_done(
    api: Served, token: str, path: str, size: int
) -> None:
    before = api.records()
    answer = api.call("POST", path, raw=padded(size), key=api.key, token=token)
    refused(answer, 413, "body_too_large")
    assert api.records() == before


def test_a_client_that_listens_only_when_all_is_sent_hears_why(api: Served) -> None:
    """A connection that is closed on somebody who still sends is reset, and the answer is lost."""
    connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", PAYMENTS, padded(10_000_000))
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "body_too_large")


def test_a_session_outlives_a_revocation_that_was_too_large(api: Served) -> None:
    path = f"{SESSIONS}/{api.session()['id']}"
    refused(api.post(f"{path}/revoke", raw=padded(BODY_BYTES_MAX + 1)), 413, "body_too_large")
    assert api.get(path).json()["is_active"] is True


def stream(api: Served, token: str, body: Iterator[bytes]) -> httpx.Response:
    """Ask for a payment with a body that does not say its size."""
    headers = {"X-Session-Token": token, "Content-Type": "application/json"}
    return httpx.post(api.url + PAYMENTS, content=body, headers=headers)


@pytest.mark.parametrize(("kib", "status"), [(63, 201), (70, 413)])
def test_a_body_that_does_not_say_its_size_is_measured(
    api: Served, token: str, kib: int, status: int
) -> None:
    body = iter([GOOD[:-1], *[b" " * 1024] * kib, b"}"])
    assert stream(api, token, body).status_code == status


def test_a_body_without_end_is_cut_off(api: Served, token: str) -> None:
    """The server reads some of what it refuses, so that its refusal is heard, but not all."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 20
            yield b" " * (1 << 20)

    # The connection may be cut while we are still sending.
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        refused(stream(api, token, endless()), 413, "body_too_large")
    assert sent < 1 << 28
    assert api.call("GET", "/healthz").status_code == 200
