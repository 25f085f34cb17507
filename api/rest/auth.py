"""Who is asking, from the headers; what a route needs of it is in its signature."""

from typing import Annotated, TypeGuard

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from engine.engine import Engine
from engine.errors import Unauthenticated
from engine.workspaces.access import SESSION_TOKEN_PREFIX, Operator, SessionHolder

_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="An operator key, or a session token"
)
_session_header = APIKeyHeader(
    name="X-Session-Token",
    auto_error=False,
    scheme_name="session",
    description="A session token",
)


def get_engine(request: Request) -> Engine:
    """The engine that this application serves."""
    engine: Engine = request.app.state.engine
    return engine


def bearer(
    found: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    """What follows `Authorization: Bearer`."""
    return found.credentials if found is not None else None


EngineOf = Annotated[Engine, Depends(get_engine)]
Bearer = Annotated[str | None, Depends(bearer)]
SessionToken = Annotated[str | None, Depends(_session_header)]


async def operator(engine: EngineOf, secret: Bearer) -> Operator:
    """An operator key, or 401."""
    if secret is None:
        raise Unauthenticated("an API key is required: Authorization: Bearer …")
    return engine.access.operator(secret)


async def admin(caller: Annotated[Operator, Depends(operator)]) -> Operator:
    """The admin's key; every other operator hears that it is not valid here."""
    if not caller.admin:
        raise Unauthenticated("this needs the admin key", code="admin_key_required")
    return caller


async def session_holder(
    engine: EngineOf, secret: Bearer, session_token: SessionToken
) -> SessionHolder:
    """A session token in X-Session-Token or as the bearer, or 401."""
    return _holder(engine, session_token or secret)


async def payment_party(
    engine: EngineOf, secret: Bearer, session_token: SessionToken
) -> Operator | SessionHolder:
    """Whoever may see a payment: the operator of its workspace, or the holder of its session."""
    if session_token or _is_session_token(secret):
        return _holder(engine, session_token or secret)
    if secret is None:
        raise Unauthenticated("an API key or a session token is required")
    return engine.access.operator(secret)


async def key_holder(engine: EngineOf, secret: Bearer) -> Operator | None:
    """Whose operator key the bearer is; None without a bearer or if it is a session token."""
    if secret is None or _is_session_token(secret):
        return None
    return engine.access.operator(secret)


def smart_payer(engine: Engine, caller: Operator | None, *tokens: str | None) -> SessionHolder:
    """Whose session the first of `tokens` is that was sent.

    Clients put the session token in the body and their API key in the header; both must hold.

    Raises:
        Unauthenticated: none was sent, or it is not valid, or not in the workspace of `caller`.
    """
    holder = _holder(engine, next(filter(None, tokens), None))
    if caller is not None and caller.workspace_id != holder.workspace_id:
        raise Unauthenticated("the session token is not valid", code="invalid_session_token")
    return holder


def _holder(engine: Engine, secret: str | None) -> SessionHolder:
    if not _is_session_token(secret):
        raise Unauthenticated("a session token is required", code="invalid_session_token")
    return engine.access.session_holder(secret)


def _is_session_token(secret: str | None) -> TypeGuard[str]:
    return secret is not None and secret.startswith(SESSION_TOKEN_PREFIX)


OperatorOf = Annotated[Operator, Depends(operator)]
AdminOf = Annotated[Operator, Depends(admin)]
SessionHolderOf = Annotated[SessionHolder, Depends(session_holder)]
KeyHolderOf = Annotated[Operator | None, Depends(key_holder)]
PaymentPartyOf = Annotated[Operator | SessionHolder, Depends(payment_party)]
