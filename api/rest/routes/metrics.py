"""What a Prometheus server scrapes."""

from fastapi import APIRouter, Request, Response

from api.rest.auth import Bearer, EngineOf
from api.rest.errors import documented
from api.rest.metrics import exposition
from engine.errors import Unauthenticated

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Metrics in the text format of Prometheus",
    response_model=None,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401, 503),
    },
)
def metrics(request: Request, engine: EngineOf, secret: Bearer) -> Response:
    """Needs the admin key, since it tells of all workspaces together, unless
    `TALLYSTICK_PUBLIC_METRICS` is set."""
    if not engine.settings.public_metrics:
        if secret is None:
            raise Unauthenticated("the admin key is required: Authorization: Bearer …")
        if not engine.access.operator(secret).admin:
            raise Unauthenticated("this needs the admin key", code="admin_key_required")
    content, media_type = exposition(engine, request.headers.get("Accept", ""))
    return Response(content, headers={"Content-Type": media_type})
