"""How `fetch` asks and reads: what comes back has an end, however much is sent."""

import zlib
from collections.abc import Mapping
from typing import Any

import httpx

from engine.errors import InvalidInput
from engine.policy.money import AmountError, parse_usd
from tallystick.errors import AnswerNotReadable
from tallystick.paying.order import ASKED, KEY, MAX_PRICE, Asked, unknown
from tallystick.paying.transports import paid

BYTES_MAX = 64 * 2**20
"""So long is an answer at most, once it is decoded."""
_GZIP_OR_DEFLATE = zlib.MAX_WBITS | 32


def request_of(
    http: httpx.Client | httpx.AsyncClient,
    method: str,
    url: str,
    content: bytes | str | None,
    headers: Mapping[str, str] | None,
    key: str,
    max_price: str | int | None,
) -> httpx.Request:
    """The request that a call of `fetch` sends.

    Raises:
        InvalidInput: the URL, the method, a header or the price is none.
    """
    extensions: dict[str, Any] = {KEY: key}
    if max_price is not None:
        try:
            parse_usd(max_price)
        except AmountError as error:
            raise InvalidInput("max_price", str(error)) from error
        extensions[MAX_PRICE] = max_price
    asked = {"Accept-Encoding": "identity", **(headers or {})}
    try:
        request = http.build_request(
            method.upper(), url, content=content, headers=asked, extensions=extensions
        )
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise InvalidInput("url", f"{url!r} cannot be asked for: {error}") from error
    if request.url.scheme not in ("http", "https") or not request.url.host:
        raise InvalidInput("url", f"{url!r} does not begin with http:// or https:// and a host")
    return request


def raise_if_paid(request: httpx.Request, error: httpx.HTTPError) -> None:
    """Raise `PaymentOutcomeUnknown` if something was signed before an answer broke off."""
    asked = request.extensions.get(ASKED)
    if isinstance(asked, Asked) and asked.signed is not None:
        why = f"the answer broke off ({type(error).__name__})"
        raise unknown(asked.signed, why) from None


class Body:
    """Takes an answer's body as it is sent, and decodes no more than `bytes_max` of it.

    Raises (here and from `feed`):
        AnswerNotReadable: it is longer, or encoded otherwise than by gzip or deflate, once.
    """

    def __init__(self, response: httpx.Response, bytes_max: int) -> None:
        self._response = response
        self._bytes_max = bytes_max
        self._content = bytearray()
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        self._inflate = None
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(_GZIP_OR_DEFLATE)
        elif encoding != "identity":
            raise self._not_readable("answer_not_readable", f"it is encoded as {encoding[:30]!a}")

    def feed(self, chunk: bytes) -> None:
        """The next part, as it was sent."""
        left = self._bytes_max - len(self._content)
        if self._inflate is not None:
            try:
                chunk = self._inflate.decompress(chunk, left + 1)
            except zlib.error:
                raise self._not_readable("answer_not_readable", "it cannot be decoded") from None
        if len(chunk) > left:
            why = f"it is longer than {self._bytes_max} bytes"
            raise self._not_readable("answer_too_long", why)
        self._content += chunk

    def response(self) -> httpx.Response:
        """The answer with its whole body."""
        found = self._response
        encoded = ("content-encoding", "content-length", "transfer-encoding")
        return httpx.Response(
            found.status_code,
            headers=[each for each in found.headers.multi_items() if each[0] not in encoded],
            content=bytes(self._content),
            request=found.request,
            extensions=found.extensions,
            history=found.history,
        )

    def _not_readable(self, code: str, why: str) -> AnswerNotReadable:
        bought = paid(self._response)
        return AnswerNotReadable(
            code,
            f"{self._response.url}: {why}" + (", and is paid for" if bought else ""),
            payment_id=None if bought is None else bought.payment_id,
            idempotency_key=None if bought is None else bought.idempotency_key,
        )
