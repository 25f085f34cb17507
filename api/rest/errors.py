"""The one table from an error to a status and a body."""

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.rest.answers import ErrorAnswer
from api.rest.methods import methods_of
from api.rest.not_offered import CODE, SEE, not_offered
from api.rest.not_offered import STATUS as NOT_OFFERED_STATUS
from api.unknown_fields import not_known
from engine.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    RateLimited,
    TallystickError,
    Unauthenticated,
    Unavailable,
)
from engine.storage.limits import Changed, TooLarge

_log = structlog.get_logger(__name__)

STATUS: Mapping[type[TallystickError], int] = {
    Changed: 412,  # which is a Conflict too
    TooLarge: 413,  # which is an InvalidInput too
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    Unauthenticated: 401,
    Forbidden: 403,
    RateLimited: 429,
    Unavailable: 503,
}
"""What an engine error is over HTTP, the first that it is; anything else is a 500."""

POLICY_DENIAL_STATUS = 402

_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    500: {"Connection": "close"},  # the server closes it after an exception: do not use it again
    503: {"Retry-After": "1"},
}
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}
_FAULTS = {"missing": "missing_required_field", "extra_forbidden": InvalidInput.code}
_FIELDS = {
    "amount": "invalid_amount",
    "amount_usd": "invalid_amount",
    "currency": "invalid_currency",
}
_MEANING = {
    401: "No valid key or token",
    403: "The key is valid, and does not open this",
    404: "Nothing of that id is visible to this caller",
    409: "It contradicts the present state, or an idempotency key",
    412: "What is there is not what If-Match or If-None-Match say",
    413: "The body, or a field of it, is too large",
    415: "The body is not application/json",
    422: "A field is unacceptable; `details.field` names it",
    429: "Too many requests with this key; `retry_after` says for how many seconds",
    503: "No safe decision is possible now; ask again with the same key",
}
_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for OpenAPI. Where there is a 401 an agent's key can be sent, too."""
    if 401 in statuses:
        statuses = (*statuses, 403, 429)
    told: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        # FastAPI makes a model's field for each, at every start: one says what all of them are.
        schema = {"content": _ERROR_CONTENT} if told else {"model": ErrorAnswer}
        told[status] = {**schema, "description": _MEANING[status]}
    return told


def error_body(code: str, message: str, **details: Any) -> ErrorAnswer:
    """Both shapes that clients read: the error as an object, and its parts at the top."""
    if not details:
        return {"error": {"code": code, "message": message}, "code": code, "message": message}
    return {
        "error": {"code": code, "message": message, "details": details},
        "code": code,
        "message": message,
        "details": details,
    }


def answer(error: Exception) -> JSONResponse:
    """What a caller hears of an engine error; of anything else no more than that it happened."""
    for kind, status in STATUS.items():
        if isinstance(error, kind):
            code = error.code
            if isinstance(error, InvalidInput) and code == InvalidInput.code:
                code = _code_of(error.field)
            body = error_body(code, error.message, **error.details)
            headers = _HEADERS.get(status)
            if isinstance(error, RateLimited):
                body["retry_after"] = error.retry_after
                headers = {"Retry-After": str(error.retry_after)}
            return JSONResponse(body, status, headers)
    # As text: a logger that is given the exception may show local variables, secrets too.
    _log.error("unexpected_error", trace="".join(traceback.format_exception(error)))
    return JSONResponse(error_body("internal_error", "something went wrong"), 500, _HEADERS[500])


def _code_of(field: str) -> str:
    """What clients of the agent-session API call a field that is not acceptable."""
    return _FIELDS.get(field, InvalidInput.code)


def _asked_of(request: Request, part: str) -> Any:
    """The type of a request's body or query, if its route has one."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    found: Sequence[Any] = getattr(dependant, f"{part}_params", ())
    return found[0].field_info.annotation if len(found) == 1 else None


def install(app: FastAPI) -> None:
    """Answer every error in this shape."""

    @app.exception_handler(TallystickError)
    async def known(_request: Request, error: TallystickError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        field = ".".join(path[1:]) or path[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = not_known(_asked_of(request, path[0]), path[1:])
        code = _FAULTS.get(first["type"]) or _code_of(field)
        return JSONResponse(error_body(code, f"{field}: {message}", field=field), 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404 and (why := not_offered(request.url.path)) is not None:
            return JSONResponse(error_body(CODE, why, see=SEE), NOT_OFFERED_STATUS)
        code, headers = _HTTP_CODES.get(error.status_code, "http_error"), error.headers
        if error.status_code == 405 and (methods := methods_of(app.routes, request.scope)):
            # All of the resource's (RFC 9110, 15.5.6); the error has those of the first route.
            headers = {"Allow": ", ".join(methods)}
        return JSONResponse(error_body(code, str(error.detail)), error.status_code, headers)

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        return answer(error)
