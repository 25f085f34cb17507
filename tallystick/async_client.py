"""What of a client an agent needs that runs on asyncio: it pays.

async with AsyncClient("http://127.0.0.1:8402", session_token="zai_session_…") as client:
    report = await client.fetch("https://api.shop.test/report")
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from tallystick.errors import ApiError
from tallystick.exchange import (
    DEFAULT_URL,
    ORDERS,
    TIMEOUT_S,
    authorization,
    checked,
    heard,
    new_key,
    part,
    paying_headers,
    read_json,
)
from tallystick.paying import MAX_TIME_S
from tallystick.paying.deadline import AsyncDeadlineTransport
from tallystick.paying.fetching import BYTES_MAX, Wanted, async_fetched
from tallystick.paying.order import Order, Receipt, Signed, read_signed, refused, report_of


class AsyncClient:
    """Pays with a session's token, as `Client` does; everything else is in `Client` alone."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        session_token: str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._session_token = session_token
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=authorization(session_token),
            transport=transport,
            trust_env=False,
            timeout=TIMEOUT_S,
        )
        self._web: httpx.AsyncBaseTransport | None = None

    async def __aenter__(self) -> Self:
        """Close the connections at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._web is not None:
            await self._web.aclose()

    async def fetch(
        self,
        url: str,
        method: str = "GET",
        *,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        max_price: str | int | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_time_s: float = MAX_TIME_S,
        bytes_max: int = BYTES_MAX,
    ) -> httpx.Response:
        """Ask for a URL, and pay if it is answered with a 402: see `Client.fetch`."""
        key = new_key() if idempotency_key is None else idempotency_key
        wanted = Wanted(
            url, method, content, headers or {}, max_price, key, timeout_s, max_time_s, bytes_max
        )
        if self._web is None:
            self._web = AsyncDeadlineTransport()
        return await async_fetched(wanted, self, self._web)

    async def buy(self, order: Order) -> Signed:
        """Have what a 402 asks for signed, as `AsyncPayingTransport` does."""
        try:
            headers = paying_headers(self._session_token, order.key)
            answer = await self._post(ORDERS, order.to_json(), headers)
        except ApiError as error:
            raise refused(order, error) from error
        return read_signed(order, answer)

    async def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Report what a resource said became of a payment: see `Client.report`."""
        path = f"/api/v1/ai/payments/{part(signed.id)}/settlement"
        try:
            headers = paying_headers(self._session_token)
            told = await self._post(path, report_of(receipt), headers)
        except ApiError:
            return None
        return str(told.get("state"))

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        with heard(self._http.base_url):
            response = await self._http.post(path, json=body, headers=headers)
        found: Mapping[str, Any] = read_json(checked(response), dict)
        return found
