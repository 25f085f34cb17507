"""Who settles: a facilitator of ours in this process, or one behind a URL."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse

if TYPE_CHECKING:
    from engine.payments.facilitator import Facilitator

THREADS = 16
ANSWER_S = 30.0
"""So long a facilitator behind a URL is waited for; then the outcome is unknown."""

T = TypeVar("T")


class Settler(Protocol):
    """What is asked of a facilitator. The SDK's `HTTPFacilitatorClient` is one."""

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """Whether it would be settled now."""

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """Have it mined."""


class OnThreads:
    """A facilitator of this process, which waits for chains, asked on threads of its own."""

    def __init__(self, facilitator: "Facilitator", threads: int = THREADS) -> None:
        self._facilitator = facilitator
        self._threads = ThreadPoolExecutor(threads, "facilitator")

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See `Settler`."""
        return await self._aside(self._facilitator.verify, payload, requirements)

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See `Settler`."""
        return await self._aside(self._facilitator.settle, payload, requirements)

    async def _aside(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


def facilitator_at(url: str) -> Settler:
    """The facilitator behind a URL, of which no redirect is followed. For one event loop."""
    import httpx

    client = httpx.AsyncClient(timeout=ANSWER_S, follow_redirects=False, trust_env=False)
    settler: Settler = HTTPFacilitatorClient(FacilitatorConfig(url=url, http_client=client))
    return settler
