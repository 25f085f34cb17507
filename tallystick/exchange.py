"""One exchange with a Tallystick server, in the words of both clients."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from tallystick.errors import ApiError

TIMEOUT_S = 30.0
ORDERS = "/api/v1/ai/sessions/self/x402"
"""Where the session whose token is sent has a payment signed."""

_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
)

_NOT_SENDABLE = (
    "a key or token begins or ends with a blank, or holds control characters or any but ASCII"
)


def authorization(secret: str | None) -> dict[str, str]:
    """The header that an operator's key or a session's token is sent in.

    Raises:
        ApiError: it cannot be sent.
    """
    if not secret:
        return {}
    if not secret.isascii():
        raise ApiError(0, "not_sendable", _NOT_SENDABLE, {})
    return {"Authorization": f"Bearer {secret}"}


def session_token_of(session_token: str | None) -> str:
    """The token with which a session pays.

    Raises:
        ApiError: there is none.
    """
    if not session_token:
        raise ApiError(0, "invalid_session_token", "a session's token is needed to pay", {})
    return session_token


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return f"idem_{secrets.token_hex(16)}"


def given_or_new(key: str | None) -> str:
    """The idempotency key that was given, or a new one."""
    return new_key() if key is None else key


def part(identifier: str) -> str:
    """An identifier as one part of a path, whatever it contains."""
    return quote(identifier, safe="")


@contextmanager
def heard(base_url: httpx.URL) -> Iterator[None]:
    """Have what httpx raises inside be an `ApiError`."""
    try:
        yield
    except _NOTHING_SENT as error:
        raise ApiError(0, "unreachable", f"{base_url}: {error}", {}) from error
    except httpx.LocalProtocolError:
        # The cause would repeat the secret.
        raise ApiError(0, "not_sendable", _NOT_SENDABLE, {}) from None
    except httpx.HTTPError as error:
        raise ApiError(0, "no_answer", f"{base_url}: {error}", {}) from error


def checked(response: httpx.Response, base_url: httpx.URL) -> httpx.Response:
    """An answer of the server at `base_url` that is no refusal.

    Raises:
        ApiError: it is one.
    """
    if response.is_success:
        return response
    status = response.status_code
    answer: Any = None
    code = message = None
    try:
        answer = response.json()
        code, message = answer["code"], answer["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if isinstance(code, str) and isinstance(message, str):
        refusal = ApiError(status, code, message, answer)
    else:
        refusal = _foreign(status, f"{base_url}: status {status}")
    after = response.headers.get("Retry-After", "")
    refusal.retry_after_s = float(after) if after.isascii() and after.isdigit() else None
    raise refusal


def _foreign(status: int, told: str) -> ApiError:
    """A refusal in other words than ours; of a failure, a proxy in front of us may tell as well."""
    error = ApiError(status, "http_error", told, {})
    if error.is_unknown:
        return error
    return ApiError(status, error.code, f"{told}: what answered there is no Tallystick server", {})


def read_json(response: httpx.Response, base_url: httpx.URL, kind: type) -> Any:
    """The object or list that an answer of the server at `base_url` is.

    Raises:
        ApiError: it is something else.
    """
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, kind):
        told = f"{base_url}: the answer is not a Tallystick's"
        raise ApiError(response.status_code, "http_error", told, {})
    return answer
