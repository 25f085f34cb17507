"""Paying what a 402 answer asks for: decided by the policy, then signed with the session's key."""

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Response

from api.rest.answers import PaymentAnswer, SettlementAnswer, SignedPayment
from api.rest.auth import EngineOf, OperatorOf, PaymentPartyOf, session_of
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute, JsonAnswer
from api.rest.idempotency import REPLAYED, WITH_KEY, IdempotencyKey
from api.rest.routes.payments import DENIED, check_party, payment_answer
from api.rest.schemas import AcceptSettlement, PayForResource, ReportSettlement
from api.rest.views import (
    REMAINING_HEADERS,
    payment_json,
    remaining_headers,
    settlement_json,
    signed_payment_json,
)
from engine.errors import Conflict
from engine.ledger.payment import Payment
from engine.payments.gate import Signed

PAYING = CapacityLimiter(64)
"""Threads that may wait for a chain, to pay. Those that all routes share would be all taken by
whoever pays on a chain that hangs, and no session could be revoked."""

_CALLER_NAMES = {"metadata_json": "metadata", "merchant": "resource"}

of_sessions = APIRouter(
    route_class=ExactJsonRoute, tags=["payments"], responses=documented(401, 422, 503)
)
of_payments = APIRouter(
    prefix="/api/v1/ai/payments",
    route_class=ExactJsonRoute,
    tags=["payments"],
    responses=documented(401, 422, 503),
)


@of_sessions.post(
    "/{session_id}/x402",
    summary="Pay what a 402 answer asks for",
    responses={
        200: {"model": SignedPayment, **REMAINING_HEADERS},
        **DENIED,
        **documented(404, 409, 415),
    },
    openapi_extra=WITH_KEY,
)
async def pay(
    session_id: str,
    body: PayForResource,
    engine: EngineOf,
    party: PaymentPartyOf,
    key: IdempotencyKey,
) -> Response:
    """The cheapest offer that the policy allows is held and signed (x402 version 2, scheme `exact`,
    EIP-3009). The same request has the same answer until it is known what became of the payment;
    with a key always. Who pays with a session's token may call that session `self`."""

    def paid() -> Signed | Payment:
        return engine.gate.pay(
            session_of(engine, party, session_id),
            body.payment_required,
            body.resource,
            body.method,
            body.body_sha256,
            key=key,
            amount_max=body.max_amount,
            metadata_json=body.metadata or "{}",
        )

    try:
        found = await to_thread.run_sync(paid, limiter=PAYING)
    except Conflict as conflict:
        raise _in_callers_words(conflict) from conflict
    if not isinstance(found, Signed):
        return payment_answer(found)
    headers = remaining_headers(found.payment.remaining)
    if found.payment.replayed:
        headers |= REPLAYED
    return JsonAnswer(signed_payment_json(found), 200, headers)


@of_payments.post(
    "/{payment_id}/settlement",
    summary="Report what the resource server answered to a signed payment",
    responses=documented(404, 409, 415),
)
def report(
    payment_id: str, body: ReportSettlement, engine: EngineOf, party: PaymentPartyOf
) -> SettlementAnswer:
    """It is kept as it was reported; what the chain says decides."""
    check_party(engine, party, payment_id)
    future = engine.paying.report(
        party.workspace_id, payment_id, body.tx_hash, success=body.success
    )
    return settlement_json(future.result())


@of_payments.post(
    "/{payment_id}/settlement/accept",
    summary="Count a payment that the chain contradicts as spent",
    responses=documented(404, 409, 415),
)
def accept(
    payment_id: str, body: AcceptSettlement, engine: EngineOf, caller: OperatorOf
) -> PaymentAnswer:
    """What ends a `settlement_contradicted`, once the chain can say nothing else: 409
    `settlement_open` before, 409 `settlement_not_contradicted` if it shows nothing against the
    payment. Who did it, and why, is in the log."""
    payment = engine.networks.accept(
        caller.workspace_id, payment_id, by=caller.key_id, reason=body.reason
    )
    return payment_json(payment, settlement=engine.settlements.of([payment]).get(payment.id))


def _in_callers_words(conflict: Conflict) -> Conflict:
    details: dict[str, Any] = dict(conflict.details)
    if (field := details.get("field")) in _CALLER_NAMES:
        details["field"] = _CALLER_NAMES[field]
        message = f"{conflict.message.partition(':')[0]}: {details['field']} differs"
        return Conflict(message, code=conflict.code, **details)
    return conflict
