"""Why: a payment that is only tried, a decision as it was made, a policy that is only a draft."""

import asyncio

from anyio import to_thread
from fastapi import APIRouter

from api.rest.answers import SimulatedPayment
from api.rest.asked import payee, payment_request
from api.rest.auth import EngineOf, PaymentPartyOf
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.explained import simulated_json
from api.rest.schemas import CreatePayment
from engine.engine import Engine
from engine.errors import NotFound
from engine.workspaces.access import Operator, SessionHolder

of_sessions = APIRouter(
    route_class=ExactJsonRoute, tags=["explanations"], responses=documented(401, 422, 503)
)


@of_sessions.post(
    "/{session_id}/simulate",
    summary="What would be decided on a payment now, and why",
    responses=documented(404, 415),
)
async def simulate(
    session_id: str, body: CreatePayment, engine: EngineOf, party: PaymentPartyOf
) -> SimulatedPayment:
    """The body is that of a payment. Nothing is held or logged, and no idempotency key is used."""
    request = payment_request(engine, body, payee(body))
    await to_thread.run_sync(_check_party, engine, party, session_id)
    found = await asyncio.wrap_future(engine.ledger.simulate(session_id, request))
    return simulated_json(session_id, found)


def _check_party(engine: Engine, party: Operator | SessionHolder, session_id: str) -> None:
    if isinstance(party, Operator):
        engine.sessions.get(party.workspace_id, session_id)
    elif party.session_id != session_id:
        raise NotFound("no such session", code="session_not_found")
