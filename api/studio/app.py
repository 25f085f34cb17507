"""The Studio as an application: its routes, the headers of every answer, its errors.

Nothing is decided here: pages show what the engine tells, and forms call what REST calls.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from anyio import to_thread
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.listening import EventStream, Streams
from api.rest.errors import STATUS, error_body
from api.rest.exact_json import JsonAnswer
from api.rest.verifying import VERIFYING
from api.studio.asked import Asked, PageView, Studio
from api.studio.pages import (
    agents,
    approvals,
    budgets,
    log,
    opening,
    people,
    reconciliation,
    restricting,
    session,
    sessions,
    sign_in,
    webhooks,
)
from api.studio.place import PREFIX
from api.studio.templating import Static
from api.studio.uploads import Upload
from engine.engine import Engine
from engine.errors import NotFound, RateLimited, TallystickError, Unauthenticated
from engine.webhooks.catalogue import EVERY
from engine.workspaces.people import Act

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
    "referrer-policy": "same-origin",  # without a referrer, forms would be sent from origin `null`
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""Of every answer; a static file, which is named by its hash, may be kept."""
PLACE_DIGITS_MAX = 15
"""What is longer is no place in a log."""

Show = Callable[[Asked], PageView]
Do = Callable[[Asked], Response]
_log = structlog.get_logger(__name__)


def studio_app(engine: Engine, streams: Streams) -> ASGIApp:
    """The application below `PREFIX`, to be open where `check_origin` lets it.

    `streams` are those that the server ends when it stops.
    """
    static = Static()
    studio = Studio(engine, static)
    routes = [
        Route("/static/{hash}/{name}", static.serve),
        Route("/live", partial(_live, studio, streams)),
    ]
    for path, act, show in PAGES:
        html = partial(_page, studio, act, show)
        routes.append(Route(path, _endpoint(html)))
        twin = partial(_twin, studio, act, show)
        routes.append(Route("/index.json" if path == "/" else f"{path}.json", _endpoint(twin)))
    # Twins first: an id takes no dot, and a path with one must not be taken for an id.
    routes.sort(key=lambda route: not route.path.endswith(".json"))
    for path, act, do in FORMS:
        routes.append(Route(path, _endpoint(partial(_form, studio, act, do)), methods=["POST"]))
    for path, act, field, show in UPLOADS:
        for suffix in ("", ".json"):
            brought = partial(_brought, studio, act, field, show, twin=bool(suffix))
            routes.append(Route(path + suffix, brought, methods=["POST"]))
    for path, act, do in FILES:
        routes.append(Route(path, _endpoint(partial(_file, studio, act, do))))

    async def not_found(request: Request, _error: Exception) -> Response:
        return _refused(studio, Asked(studio, request, b""), NotFound("there is no such page"))

    async def broken(request: Request, error: Exception) -> Response:
        _log.error("studio_failed", path=request.url.path, error=repr(error))
        return JSONResponse(error_body("internal_error", "something went wrong"), 500)

    async def too_many(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RateLimited)
        headers = {"retry-after": str(error.retry_after)}
        return JSONResponse(error_body(error.code, error.message), 429, headers)

    handlers = {HTTPException: not_found, RateLimited: too_many, Exception: broken}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _Headers(app)


PAGES: tuple[tuple[str, Act | None, Show], ...] = (
    ("/", "look", sessions.inventory),
    ("/sessions/new", "loosen", opening.new),
    ("/sessions/{session_id}", "look", session.one),
    ("/sessions/{session_id}/consent", "loosen", opening.consent),
    ("/sessions/{session_id}/payments/{payment_id}", "look", session.explained),
    ("/sessions/{session_id}/try", "try", session.tried),
    ("/sessions/{session_id}/restrict", "loosen", restricting.new),
    ("/revoke", "tighten", sessions.preview),
    ("/approvals", "look", approvals.inbox),
    ("/approvals/{approval_id}", "look", approvals.one),
    ("/reconciliation", "examine", reconciliation.state),
    ("/log", "examine", log.state),
    ("/agents", "examine", agents.everything),
    ("/agents/new-key", "loosen", agents.new_key),
    ("/budgets", "examine", budgets.everything),
    ("/budgets/set", "loosen", budgets.new),
    ("/webhooks", "connect", webhooks.everything),
    ("/webhooks/new", "connect", webhooks.new),
    ("/webhooks/{webhook_id}", "connect", webhooks.one),
    ("/people", "invite", people.everybody),
    ("/sign-in", None, sign_in.sign_in),
    ("/set-up", None, sign_in.set_up),
)
"""Path, what the role must allow (None: anybody), and what makes the page."""

FORMS: tuple[tuple[str, Act | None, Do], ...] = (
    ("/sign-in", None, sign_in.signed_in),
    ("/set-up/begin", None, sign_in.begun),
    ("/set-up", None, sign_in.done),
    ("/sign-out", "look", sign_in.signed_out),
    ("/revoke", "tighten", sessions.revoke),
    ("/sessions/new", "loosen", opening.opened),
    ("/sessions/{session_id}/consent", "loosen", opening.consented),
    ("/sessions/{session_id}/configuration", "loosen", opening.download),
    ("/sessions/{session_id}/pause", "tighten", session.pause),
    ("/sessions/{session_id}/revoke", "tighten", session.revoke),
    ("/sessions/{session_id}/resume", "loosen", session.resume),
    ("/sessions/{session_id}/restrict", "loosen", restricting.restrict),
    ("/budgets/set", "loosen", budgets.put),
    ("/budgets/lift", "loosen", budgets.lift),
    ("/approvals/{approval_id}/grant", "approve", approvals.grant),
    ("/approvals/{approval_id}/deny", "approve", approvals.deny),
    ("/agents", "loosen", agents.register),
    ("/agents/new-key", "loosen", agents.make_key),
    ("/agents/keys/{key_id}/revoke", "tighten", agents.revoke_key),
    ("/operators/{key_id}/revoke", "invite", agents.revoke_operator),
    ("/webhooks/new", "connect", webhooks.create),
    ("/webhooks/{webhook_id}/test", "connect", webhooks.test),
    ("/webhooks/{webhook_id}/replay", "connect", webhooks.replay),
    ("/webhooks/{webhook_id}/switch", "connect", webhooks.switch),
    ("/webhooks/{webhook_id}/rotate", "connect", webhooks.rotate),
    ("/webhooks/{webhook_id}/delete", "connect", webhooks.delete),
    ("/people", "invite", people.invite),
    ("/people/{key_id}/revoke", "invite", people.revoke),
)
FILES: tuple[tuple[str, Act, Do], ...] = (
    ("/sessions/{session_id}/evidence", "examine", session.evidence),
    ("/sessions/{session_id}/configuration", "look", opening.download),
)

UPLOADS: tuple[tuple[str, Act, str, Show], ...] = (("/log", "examine", "evidence", log.verified),)
"""Forms that bring a file in a field, and answer with a page and its twin."""


_TITLES = {403: "Not allowed", 404: "Not found", 503: "Not now"}
"""Of a page that cannot be shown, by its status."""


def _endpoint(
    answer: Callable[[Request, bytes], Response],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await to_thread.run_sync(answer, request, body)

    return endpoint


def _page(studio: Studio, act: Act | None, show: Show, request: Request, _body: bytes) -> Response:
    asked = Asked(studio, request, b"")
    try:
        asked.admit(act)
        return asked.page(show(asked))
    except TallystickError as error:
        return _refused(studio, asked, error)


def _twin(studio: Studio, act: Act | None, show: Show, request: Request, _body: bytes) -> Response:
    asked = Asked(studio, request, b"")
    try:
        asked.admit(act)
        return JsonAnswer(show(asked).data)
    except TallystickError as error:
        return _error_twin(error)


def _form(studio: Studio, act: Act | None, do: Do, request: Request, body: bytes) -> Response:
    asked = Asked(studio, request, body)
    try:
        asked.check_origin()
        asked.admit(act)
        if act is not None:
            asked.check_form()
        return do(asked)
    except TallystickError as error:
        return _refused(studio, asked, error)


def _file(studio: Studio, act: Act, do: Do, request: Request, _body: bytes) -> Response:
    asked = Asked(studio, request, b"")
    try:
        asked.admit(act)
        return do(asked)
    except TallystickError as error:
        return _refused(studio, asked, error)


async def _brought(
    studio: Studio, act: Act, field: str, show: Show, request: Request, *, twin: bool
) -> Response:
    asked = Asked(studio, request, b"")

    def enter() -> None:
        asked.check_origin()
        asked.admit(act)

    try:
        await to_thread.run_sync(enter)  # before anything is read that somebody brings
        asked.upload = await Upload.read(request, field)
        asked.check_form()
        view = await to_thread.run_sync(show, asked, limiter=VERIFYING)
    except TallystickError as error:
        if twin:
            return _error_twin(error)
        return await to_thread.run_sync(_refused, studio, asked, error)
    return JsonAnswer(view.data) if twin else await to_thread.run_sync(asked.page, view)


async def _live(studio: Studio, streams: Streams, request: Request) -> Response:
    """Tells a page that something happened, for as long as somebody is signed in."""
    asked = Asked(studio, request, b"")
    feed = studio.engine.feed

    def place() -> int:
        asked.admit("look", seen=False)
        shown = request.query_params.get("after", "")  # the newest that the page can show
        last = request.headers.get("last-event-id", shown)
        known = last.isascii() and last.isdigit() and len(last) <= PLACE_DIGITS_MAX
        return feed.begin(int(last) if known else None)

    def allowed() -> None:
        studio.people.signed_in(asked.secret, asked.now_ms, seen=False)

    try:
        begin = await to_thread.run_sync(place)
    except TallystickError as error:
        return _error_twin(error)
    return EventStream(
        streams,
        feed,
        caller=asked.who.key_id,
        workspace_id=asked.who.workspace_id,
        place=begin,
        wanted=(EVERY,),
        allowed=allowed,
    )


def _refused(_studio: Studio, asked: Asked, error: TallystickError) -> Response:
    unknown = isinstance(error, Unauthenticated) and asked.person is None
    if unknown and asked.request.method == "GET":
        return RedirectResponse(f"{PREFIX}/sign-in", 303)
    sent = asked.request.method != "GET"
    data = {"code": error.code, "message": error.message.rstrip("."), "sent": sent}
    status = _status(error)
    title = "Not done" if sent else _TITLES.get(status, "Not shown")
    page = asked.page(PageView("error.html", title, data), status)
    if isinstance(error, RateLimited):
        page.headers["retry-after"] = str(error.retry_after)
    return page


def _error_twin(error: TallystickError) -> Response:
    return JSONResponse(error_body(error.code, error.message), _status(error))


def _status(error: TallystickError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


class _Headers:
    """Puts `HEADERS` on every answer that has not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
