"""The application: routes, error shape, and the limits on what may come in."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest import errors
from api.rest.errors import error_body
from api.rest.routes import log, payments, sessions, workspaces
from engine.engine import Engine

BODY_BYTES_MAX = 65_536


class BodyLimit:
    """Refuses bodies above `BODY_BYTES_MAX` with 413, whatever their header says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
            if size > BODY_BYTES_MAX:
                body = error_body("body_too_large", f"the body is above {BODY_BYTES_MAX} bytes")
                await JSONResponse(body, 413)(scope, receive, send)
                return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


def create_app(engine: Engine) -> FastAPI:
    """The REST application over an open engine."""
    app = FastAPI(
        title="Tallystick",
        summary="Audit and policy engine for money that AI agents spend",
        version="0.1.0",
    )
    app.state.engine = engine
    errors.install(app)
    app.add_middleware(BodyLimit)
    # Clients of the agent-session API use the first root; the second is the shorter one.
    for prefix in ("/api/v1/ai/sessions", "/api/v1/sessions"):
        app.include_router(sessions.router, prefix=prefix)
    app.include_router(payments.router)
    app.include_router(workspaces.router)
    app.include_router(log.router)

    @app.get("/healthz", tags=["health"], summary="The process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Decisions can be made")
    async def readyz() -> JSONResponse:
        state = engine.ready()
        return JSONResponse(state, 200 if state["ready"] else 503)

    return app
