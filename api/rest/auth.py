"""Who is asking, from the headers; what a route needs of it is in its signature."""

from typing import Annotated, Any, NamedTuple, TypeGuard

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param

from engine.engine import Engine
from engine.errors import Unauthenticated
from engine.identifiers import secret_hash
from engine.workspaces.access import SESSION_TOKEN_PREFIX, Operator, SessionHolder

TOKENS_MAX = 65_536
"""So many sessions' tokens are remembered; any other is looked up again."""


class _Bearer(SecurityBase):
    """What follows `Authorization: Bearer` (RFC 6750), or None."""

    def __init__(self) -> None:
        self.scheme_name = "key"
        self.model = HTTPBearer(description="An operator key, or a session token")

    async def __call__(self, request: Request) -> str | None:
        scheme, secret = get_authorization_scheme_param(request.headers.get("Authorization"))
        return secret or None if scheme.lower() == "bearer" else None


_bearer = _Bearer()
_session_header = APIKeyHeader(
    name="X-Session-Token",
    auto_error=False,
    scheme_name="session",
    description="A session token",
)


class SessionTokens:
    """Recognises session tokens, and remembers by their hashes those that it has recognised.

    A session has one token for as long as it is kept, whatever its state, so what is remembered
    stays true. Operator keys are revoked, and are always looked up.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holders: dict[bytes, SessionHolder] = {}

    def holder(self, secret: str | None) -> SessionHolder:
        """Whose token this is.

        Raises:
            Unauthenticated: nobody's, or it is no session token at all.
        """
        if not _is_session_token(secret):
            raise Unauthenticated("a session token is required", code="invalid_session_token")
        wanted = secret_hash(secret)
        holder = self._holders.get(wanted)
        if holder is None:
            holder = self._engine.access.session_holder(secret)
            if len(self._holders) >= TOKENS_MAX:
                del self._holders[next(iter(self._holders))]
            self._holders[wanted] = holder
        return holder


# Dependencies are coroutine functions, also where they wait for nothing: FastAPI would run any
# other on a thread, which costs more than the rest of a request. Each costs as much as reading the
# body: payments have one for all credentials, and document them with `BY_KEY_OR_TOKEN`.


async def get_engine(request: Request) -> Engine:
    """The engine that this application serves."""
    engine: Engine = request.app.state.engine
    return engine


async def get_tokens(request: Request) -> SessionTokens:
    """The session tokens that this application has recognised."""
    tokens: SessionTokens = request.app.state.tokens
    return tokens


EngineOf = Annotated[Engine, Depends(get_engine)]
TokensOf = Annotated[SessionTokens, Depends(get_tokens)]
Bearer = Annotated[str | None, Depends(_bearer)]
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


BY_KEY_OR_TOKEN: dict[str, Any] = {
    "security": [{_bearer.scheme_name: []}, {_session_header.scheme_name: []}],
}
"""For OpenAPI, where a dependency reads the credentials by itself."""


async def session_holder(request: Request) -> SessionHolder:
    """A session token in X-Session-Token or as the bearer, or 401."""
    tokens = await get_tokens(request)
    return tokens.holder(await _session_header(request) or await _bearer(request))


async def payment_party(
    engine: EngineOf, tokens: TokensOf, secret: Bearer, session_token: SessionToken
) -> Operator | SessionHolder:
    """Whoever may see a payment: the operator of its workspace, or the holder of its session."""
    if session_token or _is_session_token(secret):
        return tokens.holder(session_token or secret)
    if secret is None:
        raise Unauthenticated("an API key or a session token is required")
    return engine.access.operator(secret)


async def party_of(request: Request) -> Operator | SessionHolder:
    """The same for a request that no route of ours answers; raises `Unauthenticated`."""
    return await payment_party(
        await get_engine(request),
        await get_tokens(request),
        await _bearer(request),
        await _session_header(request),
    )


class Smart(NamedTuple):
    """Who asks for a smart payment, by the headers: `sent` are the tokens that may be in them."""

    caller: Operator | None
    sent: tuple[str | None, str | None]


async def smart_credentials(request: Request) -> Smart:
    """The holder of the key that is the bearer, and where a session token may stand."""
    secret = await _bearer(request)
    caller = find_key_holder(await get_engine(request), secret)
    return Smart(caller, (await _session_header(request), secret))


def find_key_holder(engine: Engine, secret: str | None) -> Operator | None:
    """Whose operator key it is; None without one or if it is a session token.

    Raises:
        Unauthenticated: it is nobody's key.
    """
    if secret is None or _is_session_token(secret):
        return None
    return engine.access.operator(secret)


def smart_payer(tokens: SessionTokens, caller: Operator | None, *sent: str | None) -> SessionHolder:
    """Whose session the first token is that was `sent`.

    Clients put the session token in the body and their API key in the header; both must hold.

    Raises:
        Unauthenticated: none was sent, or it is not valid, or not in the workspace of `caller`.
    """
    holder = tokens.holder(next(filter(None, sent), None))
    if caller is not None and caller.workspace_id != holder.workspace_id:
        raise Unauthenticated("the session token is not valid", code="invalid_session_token")
    return holder


def _is_session_token(secret: str | None) -> TypeGuard[str]:
    return secret is not None and secret.startswith(SESSION_TOKEN_PREFIX)


OperatorOf = Annotated[Operator, Depends(operator)]
AdminOf = Annotated[Operator, Depends(admin)]
SessionHolderOf = Annotated[SessionHolder, Depends(session_holder)]
SmartOf = Annotated[Smart, Depends(smart_credentials)]
PaymentPartyOf = Annotated[Operator | SessionHolder, Depends(payment_party)]
