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


def authorization(secret: str | None) -> dict[str, str]:
    """The header that an operator's key or a session's token is sent in."""
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def paying_headers(session_token: str | None, key: str | None = None) -> dict[str, str]:
    """The headers with which a session pays.

    Raises:
        ApiError: there is no token.
    """
    if not session_token:
        raise ApiError(0, "invalid_session_token", "a session's token is needed to pay", {})
    return {"X-Session-Token": session_token} | ({"Idempotency-Key": key} if key else {})


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return f"pay_{secrets.token_hex(16)}"


def part(identifier: str) -> str:
    """An identifier as one part of a path, whatever it contains."""
    return quote(identifier, safe="")


def budget_path(agent_id: str | None) -> str:
    """Where the budget of an agent is or, without one, that of the workspace."""
    if agent_id is None:
        return "/api/v1/budgets/workspace"
    return f"/api/v1/agents/{part(agent_id)}/budget"


@contextmanager
def heard(base_url: httpx.URL) -> Iterator[None]:
    """Have what httpx raises inside be an `ApiError`."""
    try:
        yield
    except _NOTHING_SENT as error:
        raise ApiError(0, "unreachable", f"{base_url}: {error}", {}) from error
    except httpx.LocalProtocolError:
        # The cause would repeat the secret.
        raise ApiError(0, "not_sendable", "a key or token holds control characters", {}) from None
    except httpx.HTTPError as error:
        raise ApiError(0, "no_answer", f"{base_url}: {error}", {}) from error


def checked(response: httpx.Response) -> httpx.Response:
    """An answer that is no refusal.

    Raises:
        ApiError: it is one.
    """
    if response.is_success:
        return response
    try:
        answer = response.json()
        raise ApiError(response.status_code, answer["code"], answer["message"], answer)
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(
            response.status_code, "http_error", f"status {response.status_code}", {}
        ) from error


def read_json(response: httpx.Response, kind: type) -> Any:
    """The object or list that an answer is.

    Raises:
        ApiError: it is something else.
    """
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, kind):
        raise ApiError(response.status_code, "http_error", "the answer is not a Tallystick's", {})
    return answer
