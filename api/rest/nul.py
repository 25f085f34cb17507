"""NUL, which PostgreSQL has in no text: refused before a statement fails for it, and with that
statement whatever others asked in the same batch."""

from urllib.parse import parse_qsl

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.rest.errors import error_body

ROOT = "/api/"
"""What is below has ids in paths and words in queries; what is stored may have any key."""


class NulRefused:
    """Answers 404 for a path with a NUL, since nothing has such an id, and 422 for a query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        answer = None
        if scope["type"] == "http" and scope["path"].startswith(ROOT):
            if "\0" in scope["path"]:
                answer = JSONResponse(error_body("not_found", "nothing has such a path"), 404)
            elif b"%00" in scope["query_string"] and (name := _named(scope["query_string"])):
                message = f"{name}: has a NUL character"
                answer = JSONResponse(error_body("invalid_parameter", message, field=name), 422)
        await (answer or self._app)(scope, receive, send)


def _named(query: bytes) -> str | None:
    """The first parameter with a NUL, by its name without one; None: there is none."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = (name for name, value in pairs if "\0" in name + value)
    return next((name.replace("\0", "") or "query" for name in found), None)
