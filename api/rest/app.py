"""The application: routes, error shape, and the limits on what may come in."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from api.listening import Streams
from api.rest import errors
from api.rest.aliases import Aliases
from api.rest.auth import SessionTokens
from api.rest.authority import rows_of
from api.rest.body_limit import BodyLimit
from api.rest.commits import Commits
from api.rest.health_answers import Health, Readiness
from api.rest.nul import NulRefused
from api.rest.rate_limits import RateLimitHeaders
from api.rest.readiness import readiness
from api.rest.routes import (
    analytics,
    approvals,
    audit,
    budgets,
    chain,
    events,
    evidence,
    explanations,
    intents,
    keys,
    log,
    metrics,
    payments,
    reconciliation,
    session_keys,
    sessions,
    transfers,
    webhooks,
    workspaces,
    x402,
)
from api.rest.stopping import ToldToAskAgain
from engine.engine import Engine

OF_SESSIONS = (sessions.router, explanations.of_sessions, x402.of_sessions, transfers.router)
OTHERS = (
    explanations.of_payments,
    x402.of_payments,
    intents.router,
    session_keys.router,
    approvals.router,
    workspaces.router,
    keys.of_agents,
    keys.of_operators,
    budgets.router,
    webhooks.router,
    events.router,
    analytics.router,
    audit.router,
    log.router,
    evidence.router,
    reconciliation.router,
    metrics.router,
    chain.router,
)


def create_app(
    engine: Engine,
    routers: Sequence[APIRouter] = (),
    larger_bodies: Mapping[str, int] | None = None,
) -> FastAPI:
    """The REST application over an open engine, with further `routers`.

    Below the paths of `larger_bodies` a body may have so many bytes.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.keeper.close()  # its connections may belong to this event loop

    # Its documentation pages bring their scripts along; nothing is loaded from elsewhere.
    app = FastAPIOffline(
        title="Tallystick",
        summary="Audit and policy engine for money that AI agents spend",
        version="0.1.0",
        responses=errors.documented(413),
        redirect_slashes=False,  # a redirect would repeat whatever host the request named
        lifespan=lifespan,
    )
    app.state.engine = engine
    app.state.tokens = SessionTokens(engine)
    app.state.commits = Commits()
    app.state.streams = Streams()
    errors.install(app)
    app.add_middleware(BodyLimit, larger=larger_bodies)
    app.add_middleware(NulRefused)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(Aliases)
    app.add_middleware(ToldToAskAgain)
    # Routes are tried in this order, and payments are what is asked for most. The application's own
    # are found at once; a router that is included goes through its routes twice.
    app.router.routes.extend(payments.router.routes)
    # Clients of the agent-session API use the first root; the second is the shorter one.
    for prefix in ("/api/v1/ai/sessions", "/api/v1/sessions"):
        for router in OF_SESSIONS:
            app.include_router(router, prefix=prefix)
    for router in (*OTHERS, *routers):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def root() -> dict[str, str]:
        return {"name": "Tallystick", "documentation": "/docs", "health": "/readyz"}

    @app.get("/healthz", tags=["health"], summary="The process answers")
    async def healthz() -> Health:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Decisions can be made",
        responses={200: {"model": Readiness}, 503: {"model": Readiness}},
    )
    async def readyz() -> JSONResponse:
        state = await readiness(engine)
        return JSONResponse(state, 200 if state["ready"] else 503)

    # FastAPI would make its routes for the first request, and everybody would wait meanwhile.
    app.state.authority = rows_of(app.routes)
    return app
