"""Sending tokens from a session: decided as any payment is, signed and sent by the engine."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response

from api.rest.answers import PaymentAnswer
from api.rest.asked import DEFAULT_SYMBOL
from api.rest.auth import EngineOf, PaymentPartyOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute
from api.rest.idempotency import WITH_KEY, IdempotencyKey
from api.rest.routes.payments import DENIED, payment_answer
from api.rest.routes.x402 import PAYING
from api.rest.schemas import Execute
from api.rest.views import REMAINING_HEADERS
from engine.errors import Conflict, InvalidInput
from engine.ledger.payment import Payment

_CALLER_NAMES = {
    "amount_micro_usd": "amount",
    "terms.amount": "amount",
    "terms.asset": "token",
    "terms.pay_to": "to",
    "merchant": "to",
    "description": "memo",
}

router = APIRouter(
    route_class=ExactJsonRoute, tags=["payments"], responses=documented(401, 422, 503)
)


@router.post(
    "/{session_id}/execute",
    status_code=201,
    summary="Send tokens from the session to an account",
    responses={
        201: {"model": PaymentAnswer, **REMAINING_HEADERS},
        **DENIED,
        **documented(404, 409, 415),
    },
    openapi_extra=WITH_KEY,
)
async def execute(
    session_id: str,
    body: Execute,
    engine: EngineOf,
    party: PaymentPartyOf,
    key: IdempotencyKey,
) -> Response:
    """On the server's own chain. The payment is held until the chain has it for good; `settlement`
    of the payment says how far that is."""
    symbol = (body.token or DEFAULT_SYMBOL).upper()
    token = engine.token(symbol, body.chain)
    if token is None:
        raise InvalidInput("token", f"{symbol} is not configured on that chain")

    def executed() -> Payment:
        return engine.networks.transfers.execute(
            session_of(engine, party, session_id),
            body.to,
            body.amount,
            token,
            key=key,
            description=body.memo,
        )

    try:
        payment = await to_thread.run_sync(executed, limiter=PAYING)
    except Conflict as conflict:
        raise _in_callers_words(conflict) from conflict
    return payment_answer(payment)


def _in_callers_words(conflict: Conflict) -> Conflict:
    details: dict[str, Any] = dict(conflict.details)
    if (field := details.get("field")) in _CALLER_NAMES:
        details["field"] = _CALLER_NAMES[field]
        message = f"{conflict.message.partition(':')[0]}: {details['field']} differs"
        return Conflict(message, code=conflict.code, **details)
    return conflict
