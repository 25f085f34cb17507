"""What a Prometheus server scrapes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.rest.auth import Bearer, EngineOf, admin, operator
from api.rest.errors import documented

router = APIRouter(tags=["health"])


async def scraper(request: Request, engine: EngineOf, secret: Bearer) -> None:
    """Whoever has the admin key, or anybody."""
    if not engine.settings.public_metrics:
        await admin(await operator(request, engine, secret))


@router.get(
    "/metrics",
    summary="Metrics in the text format of Prometheus",
    response_model=None,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401, 503),
    },
)
def metrics(
    request: Request, engine: EngineOf, _scraper: Annotated[None, Depends(scraper)]
) -> Response:
    """Needs the admin key, since it tells of all workspaces together, unless
    `TALLYSTICK_PUBLIC_METRICS` is set."""
    from api.rest.metrics import exposition  # most servers are never asked

    content, media_type = exposition(engine, request.headers.get("Accept", ""))
    return Response(content, headers={"Content-Type": media_type})
