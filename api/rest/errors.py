"""The one table from an error to a status and a body."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engine.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    TallystickError,
    Unauthenticated,
    Unavailable,
)
from engine.policy.identifiers import IdentifierError

_log = structlog.get_logger(__name__)

STATUS: Mapping[type[TallystickError], int] = {
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    Unauthenticated: 401,
    Unavailable: 503,
}
"""What an engine error is over HTTP; anything else is a 500."""

POLICY_DENIAL_STATUS = 402


def error_body(code: str, message: str, **details: Any) -> dict[str, Any]:
    """Both shapes that clients read: the error as an object, and its parts at the top."""
    body: dict[str, Any] = {"code": code, "message": message}
    if details:
        body["details"] = details
    return {"error": dict(body), **body}


def install(app: FastAPI) -> None:
    """Answer every error in this shape."""

    @app.exception_handler(TallystickError)
    async def known(_request: Request, error: TallystickError) -> JSONResponse:
        status = next((STATUS[kind] for kind in STATUS if isinstance(error, kind)), 500)
        if status == 500:
            _log.error("unexpected_error", error=repr(error))
            return JSONResponse(error_body("internal_error", "something went wrong"), 500)
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse(error_body(error.code, error.message, **error.details), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        field = ".".join(path[1:]) or path[0]
        message = first["msg"].removeprefix("Value error, ")
        code = "missing_required_field" if first["type"] == "missing" else "invalid_parameter"
        return JSONResponse(error_body(code, f"{field}: {message}", field=field), 422)

    @app.exception_handler(IdentifierError)
    async def identifier(_request: Request, error: IdentifierError) -> JSONResponse:
        return JSONResponse(error_body("invalid_parameter", f"token: {error}", field="token"), 422)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return JSONResponse(error_body(code, str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        _log.error("unexpected_error", error=repr(error), exc_info=error)
        return JSONResponse(error_body("internal_error", "something went wrong"), 500)
