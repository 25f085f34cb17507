"""Who is asking, from the headers; what a route needs of it is in its signature."""

from typing import Annotated

from fastapi import Depends, Header, Request

from engine.engine import Engine
from engine.errors import Unauthenticated
from engine.workspaces.access import SESSION_TOKEN_PREFIX, Operator, SessionHolder


def get_engine(request: Request) -> Engine:
    """The engine that this application serves."""
    engine: Engine = request.app.state.engine
    return engine


EngineOf = Annotated[Engine, Depends(get_engine)]
Authorization = Annotated[str | None, Header(description="Bearer and an API key or session token")]
SessionToken = Annotated[str | None, Header(alias="X-Session-Token")]


def _bearer(authorization: str | None) -> str | None:
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


async def operator(engine: EngineOf, authorization: Authorization = None) -> Operator:
    """An operator key, or 401."""
    secret = _bearer(authorization)
    if secret is None:
        raise Unauthenticated("an API key is required: Authorization: Bearer …")
    return engine.access.operator(secret)


async def admin(caller: Annotated[Operator, Depends(operator)]) -> Operator:
    """The admin's key; every other operator hears that it is not valid here."""
    if not caller.admin:
        raise Unauthenticated("this needs the admin key", code="admin_key_required")
    return caller


async def session_holder(
    engine: EngineOf, authorization: Authorization = None, x_session_token: SessionToken = None
) -> SessionHolder:
    """A session token in X-Session-Token or as the bearer, or 401."""
    secret = x_session_token or _bearer(authorization)
    if secret is None or not secret.startswith(SESSION_TOKEN_PREFIX):
        raise Unauthenticated("a session token is required", code="invalid_session_token")
    return engine.access.session_holder(secret)


async def payment_party(
    engine: EngineOf, authorization: Authorization = None, x_session_token: SessionToken = None
) -> Operator | SessionHolder:
    """Whoever may see a payment: the operator of its workspace, or the holder of its session."""
    secret = x_session_token or _bearer(authorization)
    if secret is None:
        raise Unauthenticated("an API key or a session token is required")
    if secret.startswith(SESSION_TOKEN_PREFIX):
        return engine.access.session_holder(secret)
    return engine.access.operator(secret)


OperatorOf = Annotated[Operator, Depends(operator)]
AdminOf = Annotated[Operator, Depends(admin)]
SessionHolderOf = Annotated[SessionHolder, Depends(session_holder)]
PaymentPartyOf = Annotated[Operator | SessionHolder, Depends(payment_party)]
