"""The facilitator as a service of its own."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.facilitator.routes import facilitator_routes
from api.rest import errors
from api.rest.body_limit import BodyLimit
from api.rest.health_answers import Health
from engine.payments.facilitator import Facilitator


def create_facilitator_app(facilitator: Facilitator) -> FastAPI:
    """The application over an open facilitator, its routes at the root."""
    app = FastAPIOffline(
        title="Tallystick facilitator",
        summary="Verifies and settles x402 payments, once each",
        version="0.1.0",
        responses=errors.documented(413),
        redirect_slashes=False,  # a redirect would repeat whatever host the request named
    )
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.include_router(facilitator_routes(facilitator))

    @app.get("/healthz", tags=["health"], summary="The process answers")
    async def healthz() -> Health:
        return {"status": "ok"}

    return app
