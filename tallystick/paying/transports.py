"""Transports of httpx that pay, so that existing code does by changing one line.

    http = httpx.Client(transport=PayingTransport(client))

Whoever redirects such a client, before or after a payment, gets no signature that was made for
another URL: httpx makes each further request from the first one, which never had it.
"""

from typing import Any

import httpx

from tallystick.exchange import new_key
from tallystick.paying.buyer import AsyncBuyer, Buyer
from tallystick.paying.order import (
    IDEMPOTENCY_KEY,
    KEY,
    MAX_PRICE,
    PAID,
    PAYMENT_REQUIRED,
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    STATUS,
    Asked,
    Order,
    Paid,
    Receipt,
    Signed,
    asked_first,
    judged,
    read_order,
    read_receipt,
    unknown,
)


class PayingTransport(httpx.BaseTransport):
    """Sends by `transport` and pays by `client`, which needs a session's token.

    `max_price` is dollars as decimal text: what costs more is not bought. A request that has an
    `Idempotency-Key` is paid for with it: sent again, it is paid for once.

    Requests raise, beside what httpx does, `PaymentDenied`, `ApiError` and `PaymentError`.
    """

    def __init__(
        self,
        client: Buyer,
        transport: httpx.BaseTransport | None = None,
        *,
        max_price: str | int | None = None,
    ) -> None:
        self._client = client
        self._transport = transport or httpx.HTTPTransport()
        self._max_price = max_price

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and once more with a payment if it is answered with a 402."""
        asked = asked_first(request.extensions, request, _url(request))
        answer = self._transport.handle_request(request)
        if not _asks(request, answer):
            return answer
        answer.close()
        signed = self._client.buy(_order(asked, request, answer, self._max_price))
        asked.signed = signed
        try:
            answer = self._transport.handle_request(_with_payment(request, signed))
        except httpx.HTTPError as error:
            self._client.report(signed, None)
            raise unknown(signed, _said(error)) from None  # the cause has the signature
        try:
            receipt = read_receipt(answer.headers.get(PAYMENT_RESPONSE))
            _keep(answer, signed, receipt, self._client.report(signed, receipt))
        except BaseException:
            answer.close()
            raise
        return answer

    def close(self) -> None:
        """Close the connections to resources; the client stays open."""
        self._transport.close()


class AsyncPayingTransport(httpx.AsyncBaseTransport):
    """`PayingTransport` for `httpx.AsyncClient`."""

    def __init__(
        self,
        client: AsyncBuyer,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        max_price: str | int | None = None,
    ) -> None:
        self._client = client
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._max_price = max_price

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and once more with a payment if it is answered with a 402."""
        asked = asked_first(request.extensions, request, _url(request))
        answer = await self._transport.handle_async_request(request)
        if not _asks(request, answer):
            return answer
        await answer.aclose()
        signed = await self._client.buy(_order(asked, request, answer, self._max_price))
        asked.signed = signed
        try:
            answer = await self._transport.handle_async_request(_with_payment(request, signed))
        except httpx.HTTPError as error:
            await self._client.report(signed, None)
            raise unknown(signed, _said(error)) from None  # the cause has the signature
        try:
            receipt = read_receipt(answer.headers.get(PAYMENT_RESPONSE))
            _keep(answer, signed, receipt, await self._client.report(signed, receipt))
        except BaseException:
            await answer.aclose()
            raise
        return answer

    async def aclose(self) -> None:
        """Close the connections to resources; the client stays open."""
        await self._transport.aclose()


def paid(response: Any) -> Paid | None:
    """What was paid for a response of httpx or requests, or for one that led to it."""
    for each in (response, *reversed(response.history)):
        kept = each.extensions if isinstance(each, httpx.Response) else vars(each)
        if isinstance(found := kept.get(PAID), Paid):
            return found
    return None


def _asks(request: httpx.Request, answer: httpx.Response) -> bool:
    """Whether an answer asks for a payment, from somebody who does not pay by themselves."""
    return (
        answer.status_code == STATUS
        and PAYMENT_REQUIRED in answer.headers
        and PAYMENT_SIGNATURE not in request.headers
    )


def _order(
    asked: Asked, request: httpx.Request, answer: httpx.Response, max_price: str | int | None
) -> Order:
    marks = request.extensions
    try:
        body: bytes | None = request.content
    except httpx.RequestNotRead:
        body = None
    limit = marks.get(MAX_PRICE, max_price)
    return read_order(
        asked,
        _url(request),
        request.method,
        body,
        answer.headers[PAYMENT_REQUIRED],
        key=marks.get(KEY) or request.headers.get(IDEMPOTENCY_KEY) or new_key(),
        max_price=None if limit is None else str(limit),
    )


def _with_payment(request: httpx.Request, signed: Signed) -> httpx.Request:
    """A request of its own, so that nobody finds the signature on the one that they made."""
    again = httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions,
    )
    again.headers[PAYMENT_SIGNATURE] = signed.signature
    return again


def _keep(
    answer: httpx.Response, signed: Signed, receipt: Receipt | None, state: str | None
) -> None:
    required = answer.headers.get(PAYMENT_REQUIRED)
    answer.extensions[PAID] = judged(signed, answer.status_code, required, receipt, state)


def _url(request: httpx.Request) -> str:
    """Without the user and the fragment, which the resource does not see as part of it."""
    return str(request.url.copy_with(userinfo=b"", fragment=None))


def _said(error: httpx.HTTPError) -> str:
    return f"no answer to the payment ({type(error).__name__})"
