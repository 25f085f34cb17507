"""Sessions: create, consent, list, get, restrict, pause, resume, revoke one or many, evidence."""

from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Response

from api.rest.answers import CreatedSession, Revoked, SessionAnswer
from api.rest.asked import new_session, wanted_sessions
from api.rest.auth import EngineOf, OperatorOf, PaymentPartyOf, PaymentReaderOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.idempotency import WITH_KEY, IdempotencyKey, mark_replay, once
from api.rest.queries import SessionsQuery
from api.rest.revocations import ManyRevoked, RevokeMany, many_json
from api.rest.schemas import (
    Consent,
    CreateChild,
    CreateSession,
    Restrict,
)
from api.rest.views import session_json
from engine.audit.disclosure import Withholdable
from engine.engine import Engine
from engine.errors import InvalidInput, Unavailable
from engine.ledger.discrepancies import SESSION_DAMAGED
from engine.ledger.once import Once
from engine.policy.decide import Left
from engine.sessions.inventory import NOTHING_LEFT, Inventory, left_of_each
from engine.sessions.session import NewSession, SessionView
from engine.workspaces.access import SessionHolder

REGISTRATION_WAIT_S = 10.0
"""How long a create request waits for the chain before it answers with a pending session."""

_WAITING = CapacityLimiter(64)
"""Threads that may wait for the chain. They are not those that revoke: that must never wait."""

_HOLDERS_WAITING = CapacityLimiter(64)
"""The same for those who hold a session's token: operators never wait behind them."""

_EXPORTING = CapacityLimiter(2)
"""Evidence files that are made at a time: each takes the processor from decisions."""

_EVIDENCE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


_WITHHOLD = "What the file commits to and does not show; the rest can still be verified."

router = APIRouter(
    route_class=ExactJsonRoute, tags=["sessions"], responses=documented(401, 422, 503)
)


@router.post(
    "",
    status_code=201,
    summary="Create a session",
    responses=documented(409, 415),
    openapi_extra=WITH_KEY,
)
async def create(
    body: CreateSession,
    engine: EngineOf,
    caller: OperatorOf,
    key: IdempotencyKey,
    response: Response,
) -> CreatedSession:
    """The token in the answer is shown again only to the same request under the same idempotency
    key."""
    asked = once(engine, caller, key, "sessions", body)
    new = new_session(
        engine,
        body,
        body.user_wallet,
        mint_pkp=body.mint_pkp,
        approvals_required=body.approvals_required,
        by=caller.key_id,
    )
    created = await to_thread.run_sync(
        _created, engine, caller.workspace_id, new, asked, limiter=_WAITING
    )
    mark_replay(response, asked)
    return created


@router.get("", summary="List sessions, the newest first")
def list_sessions(
    engine: EngineOf,
    caller: PaymentReaderOf,
    asked: Annotated[SessionsQuery, Query()],
    response: Response,
) -> list[SessionAnswer]:
    """Sessions in every state, those that ended too, unless a `status` is named. `X-Total-Count`
    says how many there are. An agent's key sees those of its agent, the holder of a token that
    session and all beneath it."""
    wanted = wanted_sessions(caller, asked, engine.clock())
    views, total = engine.sessions.page(
        caller.workspace_id, wanted=wanted, offset=asked.offset, limit=asked.limit
    )
    response.headers["X-Total-Count"] = str(total)
    lefts = left_of_each(engine.ledger.left, views)
    return [_listed(engine, view, left) for view, left in zip(views, lefts, strict=True)]


@router.get("/{session_id}", summary="One session", responses=documented(404))
def get(session_id: str, engine: EngineOf, caller: PaymentReaderOf) -> SessionAnswer:
    """With what is left of its limits at this moment. The holder of a token sees that session
    alone, and may call it `self`."""
    found = session_of(engine, caller, session_id)
    return _shown(engine, engine.sessions.get(caller.workspace_id, found))


@router.post(
    "/{session_id}/children",
    status_code=201,
    summary="Create a session beneath another one",
    responses=documented(404, 409, 415),
    openapi_extra=WITH_KEY,
)
async def create_child(
    session_id: str,
    body: CreateChild,
    engine: EngineOf,
    party: PaymentPartyOf,
    key: IdempotencyKey,
    response: Response,
) -> CreatedSession:
    """Who holds the parent's token may delegate from it, or an operator; what the child spends
    counts against the parent too. The token is shown again as to create any session."""
    holder = isinstance(party, SessionHolder)
    session_id = await to_thread.run_sync(session_of, engine, party, session_id)
    parent = await to_thread.run_sync(engine.sessions.get, party.workspace_id, session_id)
    new = new_session(
        engine,
        body,
        body.user_wallet or parent.user_wallet,
        mint_pkp=parent.mint_pkp if body.mint_pkp is None else body.mint_pkp,
        approvals_required=body.approvals_required,
        parent_id=session_id,
        by=party.session_id if isinstance(party, SessionHolder) else party.key_id,
    )
    asked = once(engine, party, key, f"sessions/{session_id}/children", body)
    limiter = _HOLDERS_WAITING if holder else _WAITING
    created = await to_thread.run_sync(
        _created, engine, party.workspace_id, new, asked, limiter=limiter
    )
    mark_replay(response, asked)
    return created


@router.post(
    "/{session_id}/consent",
    summary="The owner's signature over the grant",
    responses=documented(404, 409, 415),
)
async def consent(
    session_id: str, body: Consent, engine: EngineOf, caller: OperatorOf
) -> SessionAnswer:
    """The signature is over the `typed_data` of the created session, or over its EIP-712 digest.

    It is checked here and again by the registry: for `erc1271` by asking the owner, a contract.
    """
    signature = bytes.fromhex(body.owner_signature[2:])

    def wait() -> SessionAnswer:
        return _shown(
            engine,
            engine.consent(
                caller.workspace_id,
                session_id,
                signature,
                kind=body.consent,
                wait_s=REGISTRATION_WAIT_S,
                by=caller.key_id,
            ),
        )

    return await to_thread.run_sync(wait, limiter=_WAITING)


@router.post(
    "/{session_id}/restrict",
    summary="Narrow a session by conditions of the operator's",
    responses=documented(404, 409, 415),
)
def restrict(
    session_id: str, body: Restrict, engine: EngineOf, caller: OperatorOf
) -> SessionAnswer:
    """These restrictions take the place of all earlier ones; an empty list lifts them."""
    return _shown(
        engine,
        engine.sessions.restrict(
            caller.workspace_id, session_id, body.restrictions, by=caller.key_id
        ),
    )


@router.post(
    "/{session_id}/pause", summary="Stop a session for a while", responses=documented(404, 409)
)
def pause(session_id: str, engine: EngineOf, caller: OperatorOf) -> SessionAnswer:
    """In force when this answers, for the sessions beneath it too. What is held can be captured."""
    return _shown(engine, engine.sessions.pause(caller.workspace_id, session_id, by=caller.key_id))


@router.post(
    "/{session_id}/resume", summary="Let a paused session go on", responses=documented(404, 409)
)
def resume(session_id: str, engine: EngineOf, caller: OperatorOf) -> SessionAnswer:
    """And those beneath it that were paused with it. One on the chain is `registering` until its
    registration has enough confirmations, if a reorganisation has moved it meanwhile."""
    return _shown(engine, engine.sessions.resume(caller.workspace_id, session_id, by=caller.key_id))


@router.post("/{session_id}/revoke", summary="End a session for good", responses=documented(404))
def revoke(session_id: str, engine: EngineOf, caller: OperatorOf) -> Revoked:
    """In force when this answers; the chain is told in the background."""
    try:
        engine.revoke_session(caller.workspace_id, session_id, by=caller.key_id)
    except Unavailable as error:
        if error.code != SESSION_DAMAGED:
            raise
        _inventory(engine).revoke_damaged(caller.workspace_id, session_id, by=caller.key_id)
    return {"success": True}


@router.post(
    "/revoke-many", summary="End all sessions that match, for good", responses=documented(409, 415)
)
def revoke_many(body: RevokeMany, engine: EngineOf, caller: OperatorOf) -> ManyRevoked:
    """First a `preview`, then its `selection`: exactly the live sessions that were shown are ended,
    with all beneath them, in one transaction. If others match by then, none is. At most 500."""
    inventory = _inventory(engine)
    sought = body.filter.sought(engine.clock())
    # `many_json` asks for sessions, and needs of them what each of these has.
    views: list[Any] = inventory.to_revoke(caller.workspace_id, sought)
    if body.preview:
        return many_json(views, None)
    if body.selection is None:
        raise InvalidInput("selection", "is needed: it is what a preview answers")
    revoked = inventory.revoke(caller.workspace_id, sought, body.selection, by=caller.key_id)
    return many_json(views, revoked)


@router.get(
    "/{session_id}/evidence",
    summary="The evidence file",
    response_class=Response,
    responses={**_EVIDENCE, **documented(404, 409)},
)
async def evidence(
    session_id: str,
    engine: EngineOf,
    caller: OperatorOf,
    withhold: Annotated[list[Withholdable] | None, Query(description=_WITHHOLD)] = None,
) -> Response:
    """What `tallystick verify` checks; the bytes matter, so save them as they are."""
    made = partial(engine.evidence, caller.workspace_id, session_id, withhold=withhold or ())
    return Response(
        await to_thread.run_sync(made, limiter=_EXPORTING),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="evidence-{session_id}.json"'},
    )


def _inventory(engine: Engine) -> Inventory:
    return Inventory(engine.database, engine.writer, engine.sessions)


def _listed(engine: Engine, view: SessionView, left: Left | None) -> SessionAnswer:
    """In a list; without `left` it pays nothing, whatever its row says."""
    body = session_json(engine, view, left or NOTHING_LEFT)
    return body if left is not None else {**body, "is_active": False}


def _shown(engine: Engine, view: SessionView) -> SessionAnswer:
    return session_json(engine, view, engine.ledger.left(view.id).result())


def _created(
    engine: Engine, workspace_id: str, new: NewSession, asked: Once | None
) -> CreatedSession:
    view, secret = engine.create_session(workspace_id, new, wait_s=REGISTRATION_WAIT_S, once=asked)
    return {**_shown(engine, view), "session_token": secret, "token": secret}
