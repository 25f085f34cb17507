"""Who is asking, from the headers; what a route needs of it is in its signature.

Whether an agent's key may make a call is for the table in `authority` to say.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple, TypeGuard

import structlog
from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param

from api.rest.authority import Row
from api.rest.commits import get_commits
from api.rest.rate_limits import note
from api.rest.reads import read
from engine.engine import Engine
from engine.errors import Forbidden, NotFound, RateLimited, Unauthenticated
from engine.identifiers import secret_hash
from engine.sessions.session import SessionView
from engine.workspaces.access import SESSION_TOKEN_PREFIX, Operator, SessionHolder
from engine.workspaces.agent_access import AgentCaller, Allowance, is_agent_key

OWN = "self"
"""What the holder of a token may call its session."""
TOKENS_MAX = 65_536
"""So many sessions' tokens are remembered; any other is looked up again."""

_log = structlog.get_logger(__name__)


class _Bearer(SecurityBase):
    """What follows `Authorization: Bearer` (RFC 6750), or None."""

    def __init__(self) -> None:
        self.scheme_name = "key"
        self.model = HTTPBearer(description="An operator's or agent's key, or a session token")

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

    def known(self, secret: str | None) -> SessionHolder | None:
        """Whose token this is, if it was recognised before."""
        return self._holders.get(secret_hash(secret)) if _is_session_token(secret) else None

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


async def _holder(engine: Engine, tokens: SessionTokens, secret: str | None) -> SessionHolder:
    known = tokens.known(secret)
    return await read(engine, tokens.holder, secret) if known is None else known


async def operator(request: Request, engine: EngineOf, secret: Bearer) -> Operator:
    """An operator key, or 401."""
    if is_agent_key(secret):
        await admitted(request, secret)
        raise AssertionError("an agent's key opens a route that is an operator's alone")
    if secret is None:
        raise Unauthenticated("an API key is required: Authorization: Bearer …")
    return await read(engine, engine.access.operator, secret)


async def operator_or_agent(
    request: Request, engine: EngineOf, secret: Bearer
) -> Operator | AgentCaller:
    """An operator key, or an agent's that sees its agent's part."""
    if is_agent_key(secret):
        return await admitted(request, secret)
    return await operator(request, engine, secret)


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
    tokens, secret = await get_tokens(request), await _bearer(request)
    agent = await admitted(request, secret) if is_agent_key(secret) else None
    token = await _session_header(request) or secret
    return beside(agent, await _holder(await get_engine(request), tokens, token))


async def payment_party(
    request: Request,
    engine: EngineOf,
    tokens: TokensOf,
    secret: Bearer,
    session_token: SessionToken,
) -> Operator | SessionHolder:
    """Whoever may act on a payment: the operator of its workspace, or who holds its session."""
    party = await payment_reader(request, engine, tokens, secret, session_token)
    assert not isinstance(party, AgentCaller), "an agent's key alone opens what is for a session"
    return party


async def payment_reader(
    request: Request,
    engine: EngineOf,
    tokens: TokensOf,
    secret: Bearer,
    session_token: SessionToken,
) -> Operator | SessionHolder | AgentCaller:
    """Whoever may look at a payment: those, and the agent of its session."""
    agent = await admitted(request, secret) if is_agent_key(secret) else None
    if session_token or _is_session_token(secret):
        return beside(agent, await _holder(engine, tokens, session_token or secret))
    if agent is not None:
        if not _row(request).alone:
            raise Unauthenticated(
                "a session token is required beside an agent's key", code="invalid_session_token"
            )
        return agent
    if secret is None:
        raise Unauthenticated("an API key or a session token is required")
    return await read(engine, engine.access.operator, secret)


async def party_of(request: Request) -> Operator | SessionHolder:
    """The same for a request that no route of ours answers; raises `Unauthenticated`.

    An agent's key beside a token is for the routes that are asked in its place to look at.
    """
    secret, token = await _bearer(request), await _session_header(request)
    engine = await get_engine(request)
    if token or _is_session_token(secret):
        return await _holder(engine, await get_tokens(request), token or secret)
    if secret is None or is_agent_key(secret):
        raise Unauthenticated("an operator's key or a session token is required")
    return await read(engine, engine.access.operator, secret)


class Smart(NamedTuple):
    """Who asks for a smart payment, by the headers: `sent` are the tokens that may be in them."""

    caller: Operator | AgentCaller | None
    sent: tuple[str | None, str | None]


async def smart_credentials(request: Request) -> Smart:
    """The holder of the key that is the bearer, and where a session token may stand."""
    secret = await _bearer(request)
    if is_agent_key(secret):
        agent = await admitted(request, secret)
        return Smart(agent, (await _session_header(request), None))
    engine = await get_engine(request)
    caller = await read(engine, partial(find_key_holder, engine), secret)
    return Smart(caller, (await _session_header(request), secret))


def find_key_holder(engine: Engine, secret: str | None) -> Operator | None:
    """Whose operator key it is; None without one or if it is a session token.

    Raises:
        Unauthenticated: it is nobody's key.
    """
    if secret is None or _is_session_token(secret):
        return None
    return engine.access.operator(secret)


async def find_smart_payer(
    engine: Engine, tokens: SessionTokens, who: Smart, token: str | None
) -> SessionHolder:
    """`smart_payer` where others wait for the event loop; `token` is the one in the body."""
    sent = next(filter(None, (token, *who.sent)), None)
    return beside(who.caller, await _holder(engine, tokens, sent))


def smart_payer(
    tokens: SessionTokens, caller: Operator | AgentCaller | None, *sent: str | None
) -> SessionHolder:
    """Whose session the first token is that was `sent`.

    Clients put the session token in the body and their API key in the header; both must hold.

    Raises:
        Unauthenticated: none was sent, or it is not valid, or not in the workspace of `caller`.
    """
    return beside(caller, tokens.holder(next(filter(None, sent), None)))


def beside(caller: Operator | AgentCaller | None, holder: SessionHolder) -> SessionHolder:
    """The session whose token was sent beside a key: one of its workspace, and of its agent."""
    if caller is not None and caller.workspace_id != holder.workspace_id:
        raise _no_such_token()
    if isinstance(caller, AgentCaller) and caller.agent_id != holder.agent_id:
        raise _no_such_token()
    return holder


async def admitted(request: Request, secret: str | None) -> AgentCaller:
    """The holder of an agent's key who may make this call, which is counted.

    Raises:
        Unauthenticated: the key is nobody's, revoked or expired.
        Forbidden: none of its scopes opens this route, or it may not be used from there.
        RateLimited: it was used too often in the last hour.
    """
    engine, commits = await get_engine(request), await get_commits(request)
    address = None if request.client is None else request.client.host
    try:
        agent, counted = await read(engine, engine.keys.use.admit, secret or "", address)
        note(request, await commits.wait(counted))
    except RateLimited as refusal:
        frees_ms = engine.clock() + refusal.retry_after * 1_000
        note(request, Allowance(refusal.details["limit"], 0, frees_ms))
        raise
    row = _row(request)
    if row.scopes.isdisjoint(agent.scopes):
        asked = request.scope["endpoint"].__name__
        _log.warning("agent_key_refused", key=agent.key_id, asked=asked)
        which = "no scope of this" if row.scopes else "no"
        raise Forbidden(
            f"{which} agent key opens this route",
            code="insufficient_scope",
            scopes=sorted(row.scopes),
        )
    return agent


def seen_session(engine: Engine, caller: Operator | AgentCaller, session_id: str) -> SessionView:
    """A session of the caller's workspace, and of the agent whose key it is.

    Raises:
        NotFound: there is none.
    """
    view = engine.sessions.get(caller.workspace_id, session_id)
    if isinstance(caller, AgentCaller) and caller.agent_id != view.agent_id:
        raise _no_such_session()
    return view


def session_of(engine: Engine, caller: Operator | SessionHolder | AgentCaller, named: str) -> str:
    """The id of the session that is named, if the caller may see it; a token costs no look-up.

    Raises:
        NotFound: there is none.
    """
    if not isinstance(caller, SessionHolder):
        return seen_session(engine, caller, named).id
    if named not in (OWN, caller.session_id):
        raise _no_such_session()
    return caller.session_id


def _row(request: Request) -> Row:
    row: Row = request.app.state.authority[request.scope["endpoint"]]
    return row


def _is_session_token(secret: str | None) -> TypeGuard[str]:
    return secret is not None and secret.startswith(SESSION_TOKEN_PREFIX)


def _no_such_token() -> Unauthenticated:
    return Unauthenticated("the session token is not valid", code="invalid_session_token")


def _no_such_session() -> NotFound:
    return NotFound("no such session", code="session_not_found")


OperatorOf = Annotated[Operator, Depends(operator)]
OperatorOrAgentOf = Annotated[Operator | AgentCaller, Depends(operator_or_agent)]
AdminOf = Annotated[Operator, Depends(admin)]
SmartOf = Annotated[Smart, Depends(smart_credentials)]
PaymentPartyOf = Annotated[Operator | SessionHolder, Depends(payment_party)]
PaymentReaderOf = Annotated[Operator | SessionHolder | AgentCaller, Depends(payment_reader)]
