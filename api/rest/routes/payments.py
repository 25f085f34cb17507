"""Payments with a session token: decide, hold, capture, void."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from api.rest.auth import (
    Authorization,
    EngineOf,
    PaymentPartyOf,
    SessionHolderOf,
    SessionToken,
    operator,
    session_holder,
)
from api.rest.errors import POLICY_DENIAL_STATUS, error_body
from api.rest.exact_json import ExactJsonRoute, dumps
from api.rest.schemas import METADATA_BYTES_MAX, Capture, CreatePayment, SmartPayment
from api.rest.views import agent_payment_json, payment_json
from engine.engine import Engine
from engine.errors import InvalidInput, NotFound, Unauthenticated
from engine.ledger.payment import Payment, parse_payment_id
from engine.policy.decision import PaymentRequest
from engine.workspaces.access import SESSION_TOKEN_PREFIX, Operator, SessionHolder

router = APIRouter(route_class=ExactJsonRoute, tags=["payments"])

Key = Annotated[str | None, Header(alias="Idempotency-Key")]
AltKey = Annotated[str | None, Header(alias="X-Idempotency-Key")]


@router.post("/api/v1/ai/smart-payment", summary="Pay at once, if the policy allows it")
async def smart_payment(
    body: SmartPayment,
    engine: EngineOf,
    authorization: Authorization = None,
    x_session_token: SessionToken = None,
    idempotency_key: Key = None,
    x_idempotency_key: AltKey = None,
) -> Response:
    """A policy denial is a 402 with its code. `agent_id` and `user_wallet` are the session's."""
    holder = await _smart_payer(engine, body.session_token, x_session_token, authorization)
    payment = await _authorise(
        engine,
        holder,
        amount=body.amount_usd,
        merchant=body.merchant_id,
        symbol=body.token,
        chain=body.chain,
        memo=_memo(body.description, body.metadata),
        key=idempotency_key or x_idempotency_key,
        capture=True,
    )
    return _answer(payment, agent_payment_json(payment), 200)


@router.post("/api/v1/payments", summary="Hold an amount, to be captured or voided")
async def create_payment(
    body: CreatePayment,
    engine: EngineOf,
    holder: SessionHolderOf,
    idempotency_key: Key = None,
    x_idempotency_key: AltKey = None,
) -> Response:
    """With `capture_method: automatic` the amount is spent at once."""
    if body.merchant_id and body.recipient_wallet and body.merchant_id != body.recipient_wallet:
        raise InvalidInput("recipient_wallet", "names another payee than merchant_id")
    payment = await _authorise(
        engine,
        holder,
        amount=body.amount,
        merchant=body.merchant_id or body.recipient_wallet,
        symbol=body.token,
        chain=body.chain,
        memo=_memo(body.description, body.metadata),
        key=idempotency_key or x_idempotency_key,
        capture=body.capture_method == "automatic",
    )
    return _answer(payment, payment_json(payment), 201)


@router.get("/api/v1/payments", summary="List payments, the newest first")
async def list_payments(
    engine: EngineOf,
    party: PaymentPartyOf,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """An operator sees the workspace's, a session token its own."""
    session_id = party.session_id if isinstance(party, SessionHolder) else None
    payments, total = engine.payments(
        party.workspace_id, session_id=session_id, offset=(page - 1) * limit, limit=limit
    )
    return {
        "data": [payment_json(payment) for payment in payments],
        "pagination": {
            "page": page,
            "limit": limit,
            "total": total,
            "total_pages": -(-total // limit),
        },
    }


@router.get("/api/v1/payments/{payment_id}", summary="One payment")
async def get_payment(payment_id: str, engine: EngineOf, party: PaymentPartyOf) -> dict[str, Any]:
    """The decision as it was made, and the state of its hold."""
    _check_party(party, payment_id)
    return payment_json(engine.payment(party.workspace_id, payment_id))


@router.post("/api/v1/payments/{payment_id}/capture", summary="Spend a hold, or part of it")
async def capture_payment(
    payment_id: str, engine: EngineOf, party: PaymentPartyOf, body: Capture | None = None
) -> Response:
    """What is not captured is free at once. The same capture again is a replay."""
    _check_party(party, payment_id)
    amount = body.amount if body is not None else None
    future = engine.ledger.capture(party.workspace_id, payment_id, amount)
    payment = await asyncio.wrap_future(future)
    return _answer(payment, payment_json(payment), 200)


@router.post("/api/v1/payments/{payment_id}/void", summary="Give a hold back")
async def void_payment(payment_id: str, engine: EngineOf, party: PaymentPartyOf) -> Response:
    """The budget is free at once. Voiding again is a replay."""
    _check_party(party, payment_id)
    payment = await asyncio.wrap_future(engine.ledger.void(party.workspace_id, payment_id))
    return _answer(payment, payment_json(payment), 200)


async def _smart_payer(
    engine: Engine, in_body: str | None, in_header: str | None, authorization: str | None
) -> SessionHolder:
    """Clients put the session token in the body and their API key in the header; both must hold."""
    secret = in_body or in_header
    bearer_is_key = authorization is not None and SESSION_TOKEN_PREFIX not in authorization
    holder = await session_holder(engine, None if bearer_is_key else authorization, secret)
    if bearer_is_key:
        caller = await operator(engine, authorization)
        if caller.workspace_id != holder.workspace_id:
            raise Unauthenticated(
                "the session token is not valid for this API key", code="invalid_session_token"
            )
    return holder


def _check_party(party: Operator | SessionHolder, payment_id: str) -> None:
    session_id, _ = parse_payment_id(payment_id)
    if isinstance(party, SessionHolder) and party.session_id != session_id:
        raise NotFound("no such payment", code="payment_not_found")


def _memo(description: str | None, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    text = dumps(metadata or {})
    if len(text.encode()) > METADATA_BYTES_MAX:
        raise InvalidInput("metadata", f"is longer than {METADATA_BYTES_MAX} bytes")
    return {"description": description, "metadata_json": text}


async def _authorise(
    engine: Engine,
    holder: SessionHolder,
    *,
    amount: int,
    merchant: str | None,
    symbol: str,
    chain: str | None,
    memo: Mapping[str, Any],
    key: str | None,
    capture: bool,
) -> Payment:
    token = engine.token(symbol.upper(), chain)
    chain = chain or engine.deployment.chain
    request = PaymentRequest(
        amount=amount,
        merchant=merchant,
        # A symbol nobody configured is still asked for and refused by the policy, in its words.
        token=token.asset if token is not None else f"{chain}/symbol:{symbol.upper()}",
        chain=chain,
        token_priced=token is not None and token.usd_price is not None,
    )
    future = engine.ledger.authorise(
        holder.session_id, request, memo=memo, key=key, capture=capture
    )
    return await asyncio.wrap_future(future)


def _answer(payment: Payment, body: dict[str, Any], status: int) -> JSONResponse:
    headers = {"Idempotent-Replayed": "true"} if payment.replayed else None
    if payment.state == "denied":
        decision = body["decision"]
        denial = error_body(
            decision["code"],
            decision["reason"],
            rule=decision["rule"],
            evidence=decision["evidence"],
        )
        return JSONResponse({**body, **denial}, POLICY_DENIAL_STATUS, headers)
    return JSONResponse(body, status, headers)
