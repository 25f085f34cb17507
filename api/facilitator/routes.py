"""`/verify`, `/settle` and `/supported`, as x402 facilitators have them, and `/settlement`.

What x402 answers is answered with 200 and a reason, in the SDK's models. A body that is no such
request is refused as everywhere here (422, 415, 413); 503 is for a chain or claims that cannot be
read, and then nothing was sent.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import StrictInt, model_validator
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SettleResponse,
    SupportedResponse,
    VerifyResponse,
)
from x402.schemas.base import BaseX402Model

from api.rest.errors import documented
from api.rest.exact_json import Unreadable, loads
from engine.errors import InvalidInput, NotFound
from engine.payments.claims import Key
from engine.payments.facilitator import Facilitator
from engine.payments.follow_up import State

THREADS_MAX = 16
"""So many requests wait for a chain at once; others wait for them."""

Answer = TypeVar("Answer")


class Requirements(PaymentRequirements):
    """What the resource server requires."""

    max_timeout_seconds: StrictInt


class Payload(PaymentPayload):
    """What the client signed for it."""

    x402_version: Literal[2]
    accepted: Requirements


class FacilitatorRequest(BaseX402Model):
    """A payment to verify or settle, in the second version of x402."""

    x402_version: Literal[2]
    payment_payload: Payload
    payment_requirements: Requirements

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, Unreadable):
            raise value.reason
        if isinstance(value, bytes):
            raise HTTPException(415, "the body must be sent as application/json")
        return value


class SettlementAnswer(BaseX402Model):
    """How far the chain is. `blocks_on_top` is left out where it is in no block, or long final."""

    state: State
    transaction: str
    blocks_on_top: int | None = None


Network = Annotated[str, Query(pattern="^eip155:[1-9][0-9]{0,31}$", description="CAIP-2 id")]
Address = Annotated[str, Query(pattern="^0x[0-9a-fA-F]{40}$")]
Nonce = Annotated[str, Query(pattern="^0x[0-9a-fA-F]{64}$")]


def facilitator_routes(facilitator: Facilitator) -> APIRouter:
    """The four routes. Chains are asked on threads, so that nobody else waits for them."""
    router = APIRouter(route_class=_JsonRoute, tags=["facilitator"])
    threads = CapacityLimiter(THREADS_MAX)

    async def aside(
        function: Callable[[PaymentPayload, PaymentRequirements], Answer], body: FacilitatorRequest
    ) -> Answer:
        return await to_thread.run_sync(
            function, body.payment_payload, body.payment_requirements, limiter=threads
        )

    @router.get(
        "/supported",
        summary="Schemes and networks that are settled",
        response_model_exclude_none=True,
    )
    async def supported() -> SupportedResponse:
        return facilitator.supported()

    @router.post(
        "/verify",
        summary="Whether a payment would be settled",
        response_model_exclude_none=True,
        responses=documented(415, 422, 503),
    )
    async def verify(body: FacilitatorRequest) -> VerifyResponse:
        """`isValid`, or `invalidReason`. Nothing is sent."""
        return await aside(facilitator.verify, body)

    @router.post(
        "/settle",
        summary="Settle a payment",
        response_model_exclude_none=True,
        responses=documented(415, 422, 503),
    )
    async def settle(body: FacilitatorRequest) -> SettleResponse:
        """`success` with what the token's events show was paid, once for each payer and nonce.

        `settlement_pending` is no failure: the same request, sent again, is answered from the
        transaction that was broadcast.
        """
        return await aside(facilitator.settle, body)

    @router.get(
        "/settlement",
        summary="What became of a payment that was sent",
        response_model_exclude_none=True,
        responses=documented(404, 422, 503),
    )
    async def settlement(
        network: Network, asset: Address, payer: Address, nonce: Nonce
    ) -> SettlementAnswer:
        """Of one authorization, by the chain as it is now. Nothing is sent."""
        key = Key(network, asset.lower(), payer.lower(), bytes.fromhex(nonce[2:]))
        known = await to_thread.run_sync(facilitator.look_up, key, limiter=threads)
        if known is None:
            raise NotFound("nothing was sent for such an authorization")
        return SettlementAnswer(
            state=known.state, transaction=f"0x{known.tx_hash.hex()}", blocks_on_top=known.depth
        )

    return router


class _JsonRoute(APIRoute):
    """A route whose body is JSON as all bodies here are, but its numbers plain ones."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle


class _JsonRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            loads(body)
            return json.loads(body)
        except InvalidInput as reason:
            return Unreadable(reason)
        except ValueError:  # an integer of more digits than Python reads
            return Unreadable(InvalidInput("body", "holds a number without end"))
