"""Payment intents: made by one party, confirmed by a session, captured or given up."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.rest.asked import payment_request
from api.rest.auth import (
    BY_KEY_OR_TOKEN,
    EngineOf,
    PaymentPartyOf,
    PaymentReaderOf,
    SmartOf,
    TokensOf,
    smart_payer,
)
from api.rest.errors import documented
from api.rest.exact_json import ExactJsonRoute, JsonAnswer
from api.rest.idempotency import REPLAYED, WITH_KEY, IdempotencyKey, mark_replay, once
from api.rest.intent_answers import (
    CreatedIntent,
    IntentAnswer,
    IntentEventAnswer,
    intent_event_json,
    intent_json,
)
from api.rest.intent_bodies import CaptureIntent, ConfirmIntent, CreateIntent, IntentsQuery
from api.rest.routes.payments import DENIED, payment_answer
from engine.audit.approvals import REQUIRED_CODE
from engine.errors import Conflict, Forbidden
from engine.ledger.intents import Confirming, NewIntent, Seen
from engine.workspaces.access import Operator, SessionHolder
from engine.workspaces.agent_access import AgentCaller

router = APIRouter(
    prefix="/api/v1/payment-intents",
    route_class=ExactJsonRoute,
    tags=["payment intents"],
    responses=documented(401, 422, 503),
)


@router.post(
    "",
    status_code=201,
    summary="Ask for a payment that a session confirms",
    responses=documented(409, 415),
    openapi_extra=WITH_KEY,
)
def create_intent(
    body: CreateIntent,
    engine: EngineOf,
    party: PaymentPartyOf,
    key: IdempotencyKey,
    response: Response,
) -> CreatedIntent:
    """The `client_secret` in the answer is shown again only to the same request under the same
    idempotency key. What a session makes it confirms."""
    own = party if isinstance(party, SessionHolder) else None
    if own is not None and body.agent_id not in (None, own.agent_id):
        raise Forbidden("the session is another agent's", code="intent_of_another_agent")
    new = NewIntent(
        request=payment_request(engine, body, body.merchant_id),
        capture_method=body.capture_method,
        agent_id=body.agent_id if own is None else own.agent_id,
        session_id=None if own is None else own.session_id,
        lifetime_s=body.expires_in_seconds,
        memo={
            "description": body.description,
            "metadata_json": body.metadata or "{}",
            "agent_name": body.agent_name,
        },
    )
    asked = once(engine, party, key, "payment-intents", body)
    intent, secret = engine.intents.create(party.workspace_id, new, by=_name(party), once=asked)
    mark_replay(response, asked)
    return {**intent_json(intent), "client_secret": secret}


@router.get("", summary="List payment intents, the newest first", responses=documented(404))
def list_intents(
    engine: EngineOf,
    party: PaymentReaderOf,
    wanted: Annotated[IntentsQuery, Query()],
    response: Response,
) -> list[IntentAnswer]:
    """An operator sees the workspace's, an agent those that name it, a session those that it made
    or confirmed. `X-Total-Count` says how many there are, of those that are asked for."""
    seen, now_ms = _seen(party), engine.clock()
    if wanted.starting_after is not None:  # a mistyped id is not an empty list
        engine.intents.get(party.workspace_id, wanted.starting_after, now_ms, seen)
    intents, total = engine.intents.page(
        party.workspace_id,
        now_ms,
        seen=seen,
        state=wanted.status,
        after=wanted.starting_after,
        offset=wanted.offset,
        limit=wanted.limit,
    )
    response.headers["X-Total-Count"] = str(total)
    return [intent_json(intent) for intent in intents]


@router.get("/{intent_id}", summary="One payment intent", responses=documented(404))
def get_intent(intent_id: str, engine: EngineOf, party: PaymentReaderOf) -> IntentAnswer:
    """As it stands now; what was not confirmed in time is `canceled`, with the code `expired`."""
    return intent_json(
        engine.intents.get(party.workspace_id, intent_id, engine.clock(), _seen(party))
    )


@router.get("/{intent_id}/events", summary="What was told of it", responses=documented(404))
def list_intent_events(
    intent_id: str, engine: EngineOf, party: PaymentReaderOf
) -> list[IntentEventAnswer]:
    """The first thing first."""
    intent = engine.intents.get(party.workspace_id, intent_id, engine.clock(), _seen(party))
    return [intent_event_json(intent, event) for event in engine.intents.events(intent)]


@router.post(
    "/{intent_id}/confirm",
    summary="Have a session pay it",
    responses={200: {"model": IntentAnswer}, **DENIED, **documented(404, 409, 415)},
    openapi_extra=BY_KEY_OR_TOKEN,
)
def confirm_intent(
    intent_id: str, body: ConfirmIntent, engine: EngineOf, tokens: TokensOf, who: SmartOf
) -> Response:
    """With `automatic` it is spent, with `manual` held. A policy denial is a 402, and final. What
    needs an approval is `processing` until that ends. Confirming again is a replay."""
    holder = smart_payer(tokens, who.caller, body.session_token, *who.sent)
    memo = {"customer_wallet": body.customer_wallet}
    if body.payment_type is not None:
        memo["payment_type"] = body.payment_type
    if body.metadata is not None:
        memo["metadata_json"] = body.metadata
    confirming = Confirming(holder.session_id, holder.agent_id, body.client_secret, memo)
    done = engine.intents.confirm(holder.workspace_id, intent_id, confirming)
    payment = done.payment
    waits = payment.decision["code"] == REQUIRED_CODE and payment.approval_id is not None
    if payment.state == "denied" and not waits:
        return payment_answer(payment)
    return JsonAnswer(intent_json(done.intent), 200, REPLAYED if payment.replayed else None)


@router.post(
    "/{intent_id}/capture",
    summary="Spend what is held for it, or part of it",
    responses=documented(404, 409, 415),
)
def capture_intent(
    intent_id: str, engine: EngineOf, party: PaymentPartyOf, body: CaptureIntent | None = None
) -> IntentAnswer:
    """What is not captured is free at once. The same capture again changes nothing."""
    seen = _seen(party)
    intent = engine.intents.get(party.workspace_id, intent_id, engine.clock(), seen)
    if intent.payment_id is None:
        raise Conflict(f"the payment intent is {intent.state}", code=f"intent_{intent.state}")
    amount = None if body is None else body.amount
    engine.ledger.capture(party.workspace_id, intent.payment_id, amount).result()
    return intent_json(engine.intents.get(party.workspace_id, intent_id, engine.clock(), seen))


@router.post(
    "/{intent_id}/cancel", summary="Give up what nobody confirmed", responses=documented(404, 409)
)
def cancel_intent(intent_id: str, engine: EngineOf, party: PaymentPartyOf) -> IntentAnswer:
    """Only while it is `requires_payment`; to void its payment gives back what is held for it.
    Canceling again changes nothing."""
    return intent_json(
        engine.intents.cancel(party.workspace_id, intent_id, by=_name(party), seen=_seen(party))
    )


def _name(party: Operator | SessionHolder) -> str:
    """Whose act it is, as the log has it."""
    return party.key_id if isinstance(party, Operator) else party.session_id


def _seen(party: Operator | SessionHolder | AgentCaller) -> Seen | None:
    if isinstance(party, Operator):
        return None
    if isinstance(party, SessionHolder):
        return Seen(session_id=party.session_id)
    return Seen(agent_id=party.agent_id)
