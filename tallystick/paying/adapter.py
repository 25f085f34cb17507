"""The same for requests, which only those need who use it.

session = requests.Session()
session.mount("https://", PayingAdapter(client))
"""

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import urldefragauth

from tallystick.exchange import new_key
from tallystick.paying.buyer import Buyer
from tallystick.paying.order import (
    IDEMPOTENCY_KEY,
    PAID,
    PAYMENT_REQUIRED,
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    STATUS,
    Asked,
    Order,
    asked_first,
    judged,
    read_order,
    read_receipt,
    unknown,
)


class PayingAdapter(HTTPAdapter):
    """Pays by `client`, which needs a session's token; otherwise an `HTTPAdapter`.

    `max_price` and a request's `Idempotency-Key` mean what they do in `PayingTransport`. Requests
    raise, beside what requests does, `PaymentDenied`, `ApiError` and `PaymentError`.
    """

    def __init__(
        self, client: Buyer, *, max_price: str | int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._client = client
        self._max_price = max_price

    def send(self, request: requests.PreparedRequest, *how: Any, **more: Any) -> requests.Response:
        """Send a request, and once more with a payment if it is answered with a 402."""
        # Of all that a request has, requests hands only its hooks on to the one that follows a
        # redirect; it calls none but those called "response".
        marks: dict[str, Any] = request.hooks
        asked = asked_first(marks, request, _url(request))
        answer = super().send(request, *how, **more)
        if (
            answer.status_code != STATUS
            or PAYMENT_REQUIRED not in answer.headers
            or PAYMENT_SIGNATURE in request.headers
        ):
            return answer
        answer.close()
        signed = self._client.buy(self._order(asked, request, answer))
        asked.signed = signed
        again = request.copy()
        again.headers[PAYMENT_SIGNATURE] = signed.signature
        try:
            answer = super().send(again, *how, **more)
        except requests.RequestException as error:
            self._client.report(signed, None)
            why = f"no answer to the payment ({type(error).__name__})"
            raise unknown(signed, why) from None  # the cause has the signature
        answer.request = request  # nobody finds the signature on it
        try:
            receipt = read_receipt(answer.headers.get(PAYMENT_RESPONSE))
            state = self._client.report(signed, receipt)
            required = answer.headers.get(PAYMENT_REQUIRED)
            vars(answer)[PAID] = judged(signed, answer.status_code, required, receipt, state)
        except BaseException:
            answer.close()
            raise
        return answer

    def _order(
        self, asked: Asked, request: requests.PreparedRequest, answer: requests.Response
    ) -> Order:
        body = request.body if request.body is not None else b""
        if isinstance(body, str):
            body = body.encode()
        limit = self._max_price
        return read_order(
            asked,
            _url(request),
            str(request.method),
            body if isinstance(body, bytes) else None,
            answer.headers[PAYMENT_REQUIRED],
            key=str(request.headers.get(IDEMPOTENCY_KEY) or new_key()),
            max_price=None if limit is None else str(limit),
        )


def _url(request: requests.PreparedRequest) -> str:
    """Without the user and the fragment, which the resource does not see as part of it."""
    return str(urldefragauth(str(request.url)))
