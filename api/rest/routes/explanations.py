"""Why: a payment that is only tried, a decision as it was made, a policy that is only a draft."""

import asyncio

from anyio import to_thread
from fastapi import APIRouter

from api.rest.asked import drafted, payee, payment_request
from api.rest.auth import EngineOf, OperatorOf, PaymentReaderOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.explained import backtest_json, explained_json, simulated_json
from api.rest.explanation_answers import BacktestAnswer, ExplainedPayment, SimulatedPayment
from api.rest.routes.payments import check_party
from api.rest.schemas import CreatePayment, DraftPolicy
from api.rest.turns import Turns

of_sessions = APIRouter(
    route_class=ExactJsonRoute, tags=["explanations"], responses=documented(401, 422, 503)
)
of_payments = APIRouter(
    route_class=ExactJsonRoute, tags=["explanations"], responses=documented(401, 422, 503)
)

_EXPLAINING = Turns(2)
_BACKTESTING = Turns(1)


@of_sessions.post(
    "/{session_id}/simulate",
    summary="What would be decided on a payment now, and why",
    responses=documented(404, 415),
)
async def simulate(
    session_id: str, body: CreatePayment, engine: EngineOf, party: PaymentReaderOf
) -> SimulatedPayment:
    """The body is that of a payment. Nothing is held or logged, and no idempotency key is used. A
    session's token may call its session `self`."""
    request = payment_request(engine, body, payee(body))
    session_id = await to_thread.run_sync(session_of, engine, party, session_id)
    found = await asyncio.wrap_future(engine.ledger.simulate(session_id, request))
    return simulated_json(session_id, found)


@of_sessions.post(
    "/{session_id}/backtest",
    summary="What a draft of the policy would have decided on the session's log",
    responses=documented(404, 415),
)
async def backtest(
    session_id: str, body: DraftPolicy, engine: EngineOf, caller: OperatorOf
) -> BacktestAnswer:
    """Nothing is changed; the draft is held against every payment that was ever decided.

    A payment that both allow is captured as it was. One that only the draft allows counts as
    captured in full, one that it denies for nothing.
    """
    draft = drafted(engine, body)

    def replayed() -> BacktestAnswer:
        engine.sessions.get(caller.workspace_id, session_id)
        found = engine.explanations.backtest(caller.workspace_id, session_id, draft)
        return backtest_json(session_id, found)

    return await _BACKTESTING.run(caller.workspace_id, replayed)


@of_payments.get(
    "/api/v1/payments/{payment_id}/explanation",
    summary="Why a payment was decided as it was",
    responses=documented(404),
)
async def explanation(
    payment_id: str, engine: EngineOf, party: PaymentReaderOf
) -> ExplainedPayment:
    """Takes longer the more records the session has: those before the payment are replayed."""

    def replayed() -> ExplainedPayment:
        check_party(engine, party, payment_id)
        payment = engine.payments.get(party.workspace_id, payment_id)
        return explained_json(payment, engine.explanations.explain(payment))

    return await _EXPLAINING.run(party.workspace_id, replayed)
