"""Payments with a session token: decide, hold, capture, void."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.rest.answers import DeniedPayment, PaymentAnswer, PaymentsPage, SmartPaymentAnswer
from api.rest.asked import payee, payment_request
from api.rest.auth import (
    BY_KEY_OR_TOKEN,
    EngineOf,
    PaymentPartyOf,
    PaymentReaderOf,
    Smart,
    find_smart_payer,
    get_engine,
    get_tokens,
    session_holder,
    session_of,
    smart_credentials,
)
from api.rest.commits import CommitsOf, get_commits
from api.rest.errors import POLICY_DENIAL_STATUS, documented
from api.rest.exact_json import ExactJsonRoute, JsonAnswer
from api.rest.exports import DOCUMENTED, export
from api.rest.idempotency import REPLAYED, WITH_KEY, idempotency_key, in_callers_words
from api.rest.queries import PaymentsExport, PaymentsQuery, WantedPayments
from api.rest.reads import read
from api.rest.schemas import Capture, CreatePayment, PaymentBody, SmartPayment
from api.rest.views import (
    REMAINING_HEADERS,
    as_decided,
    denied_json,
    payment_json,
    remaining_headers,
    remaining_json,
    smart_payment_json,
)
from engine.db.database import ROWS_TOGETHER
from engine.engine import Engine
from engine.errors import Conflict, NotFound, Unavailable
from engine.ledger.ask import read_request
from engine.ledger.payment import Payment, parse_payment_id
from engine.ledger.payments import Sought
from engine.policy.decision import Remaining
from engine.workspaces.access import Operator, SessionHolder
from engine.workspaces.agent_access import AgentCaller

DENIED: dict[int | str, dict[str, Any]] = {
    POLICY_DENIAL_STATUS: {
        "model": DeniedPayment,
        "description": "The policy denies the payment",
        **REMAINING_HEADERS,
    }
}

COLUMNS = [name for name in PaymentAnswer.__annotations__ if name != "remaining_now"]
"""Those of an exported CSV."""

router = APIRouter(
    route_class=ExactJsonRoute, tags=["payments"], responses=documented(401, 413, 422, 503)
)


# One dependency each, for what is asked most: FastAPI takes as long to look after another.


async def _holder_and_key(request: Request) -> tuple[SessionHolder, str | None]:
    return await session_holder(request), await idempotency_key(request)


async def _smart_credentials_and_key(request: Request) -> tuple[Smart, str | None]:
    return await smart_credentials(request), await idempotency_key(request)


@router.post(
    "/api/v1/ai/smart-payment",
    summary="Pay at once, if the policy allows it",
    responses={
        200: {"model": SmartPaymentAnswer, **REMAINING_HEADERS},
        **DENIED,
        **documented(409, 415),
    },
    openapi_extra=BY_KEY_OR_TOKEN | WITH_KEY,
)
async def smart_payment(
    request: Request,
    body: SmartPayment,
    credentials: Annotated[tuple[Smart, str | None], Depends(_smart_credentials_and_key)],
) -> Response:
    """A policy denial is a 402 with its code. `agent_id` and `user_wallet` are the session's."""
    engine, tokens = await get_engine(request), await get_tokens(request)
    who, key = credentials
    holder = await find_smart_payer(engine, tokens, who, body.session_token)
    future = ask_smart_payment(engine, holder, body, key)
    payment = await _decided(request, future, body)
    return smart_payment_answer(payment)


@router.post(
    "/api/v1/payments",
    status_code=201,
    summary="Hold an amount, to be captured or voided",
    responses={
        201: {"model": PaymentAnswer, **REMAINING_HEADERS},
        **DENIED,
        **documented(409, 415),
    },
    openapi_extra=BY_KEY_OR_TOKEN | WITH_KEY,
)
async def create_payment(
    request: Request,
    body: CreatePayment,
    credentials: Annotated[tuple[SessionHolder, str | None], Depends(_holder_and_key)],
) -> Response:
    """With `capture_method: automatic` the amount is spent at once."""
    holder, key = credentials
    future = ask_payment(await get_engine(request), holder, body, key)
    payment = await _decided(request, future, body)
    return payment_answer(payment)


@router.get(
    "/api/v1/payments", summary="List payments, the newest first", responses=documented(404)
)
def list_payments(
    engine: EngineOf, party: PaymentReaderOf, wanted: Annotated[PaymentsQuery, Query()]
) -> PaymentsPage:
    """An operator sees the workspace's, an agent its sessions', a session token its own."""
    payments, total = engine.payments.page(
        party.workspace_id,
        **_sought(engine, party, wanted),
        offset=wanted.offset,
        limit=wanted.limit,
    )
    settlements = engine.settlements.of(payments)
    return {
        "data": [
            payment_json(payment, settlement=settlements.get(payment.id)) for payment in payments
        ],
        "pagination": wanted.pagination(total),
    }


@router.get(
    "/api/v1/payments/export",
    summary="All payments as a file",
    response_model=None,
    responses={**DOCUMENTED, **documented(404)},
)
def export_payments(
    engine: EngineOf, party: PaymentReaderOf, wanted: Annotated[PaymentsExport, Query()]
) -> StreamingResponse:
    """The payments of the list, the oldest first, as JSON, NDJSON or CSV."""
    sought = _sought(engine, party, wanted)
    payments = engine.payments.all(party.workspace_id, **sought)
    return export("payments", wanted.format, COLUMNS, _told(engine, payments))


def _told(engine: Engine, payments: Iterator[Payment]) -> Iterator[PaymentAnswer]:
    while some := list(islice(payments, ROWS_TOGETHER)):
        settlements = engine.settlements.of(some)
        for payment in some:
            yield payment_json(payment, settlement=settlements.get(payment.id))


def _sought(
    engine: Engine, party: Operator | SessionHolder | AgentCaller, wanted: WantedPayments
) -> Sought:
    """Which payments are wanted, of those that the caller sees.

    Raises:
        NotFound: it names a session that it does not see; a mistyped id is not an empty list.
    """
    session_id = wanted.session_id
    if session_id is not None:
        session_id = session_of(engine, party, session_id)
    elif isinstance(party, SessionHolder):
        session_id = party.session_id
    agent_id = party.agent_id if isinstance(party, AgentCaller) else None
    return {
        "agent_id": agent_id,
        "session_id": session_id,
        "states": wanted.states,
        "from_ms": wanted.from_date,
        "until_ms": wanted.to_date,
    }


@router.get(
    "/api/v1/payments/{payment_id}",
    summary="One payment",
    responses={200: REMAINING_HEADERS, **documented(404)},
)
async def get_payment(
    payment_id: str,
    engine: EngineOf,
    commits: CommitsOf,
    party: PaymentReaderOf,
    response: Response,
) -> PaymentAnswer:
    """The decision as it was made, the state of its hold, and what the limits leave by now."""
    await read(engine, check_party, engine, party, payment_id)
    payment = await read(engine, engine.payments.get, party.workspace_id, payment_id)
    left = engine.ledger.remaining(payment.session_id, read_request(payment.request))
    now: Remaining | None = None
    with contextlib.suppress(Unavailable):  # what was decided can be read all the same
        now = await commits.wait(left)
        response.headers.update(remaining_headers(now.to_json()))
        if payment.state == "held":  # it may have been over, and is expired by now
            payment = await read(engine, engine.payments.get, party.workspace_id, payment_id)
    settlements = await read(engine, engine.settlements.of, [payment])
    return {
        **payment_json(payment, settlement=settlements.get(payment.id)),
        "remaining_now": None if now is None else remaining_json(now),
    }


@router.post(
    "/api/v1/payments/{payment_id}/capture",
    summary="Spend a hold, or part of it",
    responses={200: {"model": PaymentAnswer, **REMAINING_HEADERS}, **documented(404, 409, 415)},
)
async def capture_payment(
    payment_id: str,
    engine: EngineOf,
    commits: CommitsOf,
    party: PaymentPartyOf,
    body: Capture | None = None,
) -> Response:
    """What is not captured is free at once. The same capture again is a replay."""
    await read(engine, check_party, engine, party, payment_id)
    amount = body.amount if body is not None else None
    future = engine.ledger.capture(party.workspace_id, payment_id, amount)
    return _ended(await commits.wait(future))


@router.post(
    "/api/v1/payments/{payment_id}/void",
    summary="Give a hold back",
    responses={200: {"model": PaymentAnswer, **REMAINING_HEADERS}, **documented(404, 409)},
)
async def void_payment(
    payment_id: str, engine: EngineOf, commits: CommitsOf, party: PaymentPartyOf
) -> Response:
    """The budget is free at once. Voiding again is a replay."""
    await read(engine, check_party, engine, party, payment_id)
    future = engine.ledger.void(party.workspace_id, payment_id)
    return _ended(await commits.wait(future))


def ask_smart_payment(
    engine: Engine, holder: SessionHolder, body: SmartPayment, key: str | None
) -> "Future[Payment]":
    """Hand a smart payment to the ledger.

    Raises:
        InvalidInput: see `engine.ledger.ask.ask`.
    """
    memo = {"product_details_json": body.product_details} if body.product_details else {}
    return _authorise(engine, holder, body, body.merchant_id, key, capture=True, **memo)


def smart_payment_answer(payment: Payment) -> Response:
    """What the caller of a smart payment hears of it."""
    return _answer(payment, smart_payment_json(payment, as_decided(payment)), 200)


def ask_payment(
    engine: Engine, holder: SessionHolder, body: CreatePayment, key: str | None
) -> "Future[Payment]":
    """Hand a payment to the ledger.

    Raises:
        InvalidInput: two payees, or see `engine.ledger.ask.ask`.
    """
    capture = body.capture_method == "automatic"
    sent = {"customer_email": body.customer_email, "redirect_url": body.redirect_url}
    memo = {name: value for name, value in sent.items() if value is not None}
    return _authorise(engine, holder, body, payee(body), key, capture=capture, **memo)


def payment_answer(payment: Payment) -> Response:
    """What the caller of a payment hears of it."""
    return _answer(payment, payment_json(payment, as_decided(payment)), 201)


async def _decided(request: Request, future: "Future[Payment]", body: PaymentBody) -> Payment:
    commits = await get_commits(request)
    try:
        return await commits.wait(future)
    except Conflict as conflict:
        raise in_callers_words(conflict, body) from conflict


def check_party(
    engine: Engine, party: Operator | SessionHolder | AgentCaller, payment_id: str
) -> None:
    """Raise `NotFound` if it is not of the holder's own session, or of the agent's; an operator's
    is looked up."""
    session_id, _ = parse_payment_id(payment_id)
    if not isinstance(party, Operator):
        try:
            session_of(engine, party, session_id)
        except NotFound:
            raise NotFound("no such payment", code="payment_not_found") from None


def _authorise(
    engine: Engine,
    holder: SessionHolder,
    body: PaymentBody,
    merchant: str | None,
    key: str | None,
    *,
    capture: bool,
    **memo: str,
) -> "Future[Payment]":
    return engine.ledger.authorise(
        holder.session_id,
        payment_request(engine, body, merchant),
        memo={"description": body.description, "metadata_json": body.metadata or "{}", **memo},
        key=key,
        capture=capture,
    )


def _ended(payment: Payment) -> Response:
    """A payment whose hold ended, with what remains of the limits now."""
    return _answer(payment, payment_json(payment, payment.left), 200)


def _answer(payment: Payment, body: PaymentAnswer, status: int) -> JsonAnswer:
    headers = remaining_headers(payment.remaining)
    if payment.replayed:
        headers |= REPLAYED
    if payment.state == "denied":
        return JsonAnswer(denied_json(body), POLICY_DENIAL_STATUS, headers)
    return JsonAnswer(body, status, headers)
