"""Session keys, as far as they have a meaning here: the key of a session, under its limits."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.rest.asked import payment_request, wanted_sessions
from api.rest.auth import EngineOf, OperatorOf, PaymentReaderOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.intent_bodies import CheckPayment, NamedSessionKey
from api.rest.queries import SessionsQuery
from api.rest.schemas import PaymentBody
from api.rest.session_key_answers import (
    CheckedPayment,
    SessionKeyRevoked,
    SessionKeys,
    SessionKeyStatus,
    checked_json,
    keys_json,
    status_json,
)
from engine.sessions.inventory import left_of_each

router = APIRouter(
    prefix="/api/v1/ai/session-keys",
    route_class=ExactJsonRoute,
    tags=["session keys"],
    responses=documented(401, 404, 415, 422, 503),
)


@router.post("/status", summary="What is left of a session's limits, as of a session key's")
def session_key_status(
    body: NamedSessionKey, engine: EngineOf, party: PaymentReaderOf
) -> SessionKeyStatus:
    """`session_key_id` is the session's id."""
    session_id = session_of(engine, party, body.session_key_id)
    left = engine.ledger.left(session_id).result()
    return status_json(engine.sessions.get(party.workspace_id, session_id), left, engine.clock())


@router.get("/list", summary="The keys of sessions, the newest first")
def list_session_keys(
    engine: EngineOf, party: PaymentReaderOf, asked: Annotated[SessionsQuery, Query()]
) -> SessionKeys:
    """Those of the sessions that `GET /api/v1/ai/sessions` lists, but for damaged ones."""
    now_ms = engine.clock()
    views, _ = engine.sessions.page(
        party.workspace_id,
        wanted=wanted_sessions(party, asked, now_ms),
        offset=asked.offset,
        limit=asked.limit,
    )
    lefts = left_of_each(engine.ledger.left, views)
    found = [(view, left) for view, left in zip(views, lefts, strict=True) if left is not None]
    return keys_json(party.workspace_id, found, now_ms)


@router.post("/revoke", summary="End the session whose key it is")
def revoke_session_key(
    body: NamedSessionKey, engine: EngineOf, caller: OperatorOf
) -> SessionKeyRevoked:
    """As to revoke the session, and all beneath it."""
    view = engine.revoke_session(caller.workspace_id, body.session_key_id, by=caller.key_id)
    return {
        "message": "revoked",
        "session_key_id": view.id,
        "note": "Tokens on the session's address stay there.",
    }


@router.post("/{session_id}/check-payment", summary="Whether an amount could be paid now")
def check_payment(
    session_id: str, body: CheckPayment, engine: EngineOf, party: PaymentReaderOf
) -> CheckedPayment:
    """The least of what the session's limits and the budgets above it leave. Nothing is held."""
    session_id = session_of(engine, party, session_id)
    asked = PaymentBody.model_construct(amount=body.amount)
    request = payment_request(engine, asked, body.merchant_id)
    found = engine.ledger.simulate(session_id, request).result()
    view = engine.sessions.get(party.workspace_id, session_id)
    return checked_json(view, request, found)
