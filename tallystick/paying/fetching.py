"""How `fetch` asks and reads: what comes back has an end, however much or slowly it is sent."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from engine.errors import InvalidInput
from engine.policy.money import AmountError, parse_usd
from tallystick.errors import AnswerNotReadable, ApiError, PaymentError
from tallystick.paying.buyer import AsyncBuyer, Buyer
from tallystick.paying.deadline import beside, time_limit
from tallystick.paying.order import (
    ASKED,
    KEY,
    MAX_PRICE,
    Asked,
    Order,
    Receipt,
    Signed,
    unknown,
)
from tallystick.paying.transports import AsyncPayingTransport, PayingTransport, paid

BYTES_MAX = 64 * 2**20
"""So long is an answer at most, once it is decoded."""
SHOWN = 200
"""So many characters of what cannot be asked for are repeated."""
_TOKEN = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t -~]*")
_OURS = frozenset(("content-length", "transfer-encoding"))
"""Headers that say how a body is sent, which whoever sends it knows."""
_PORT_MAX = 65_535
_GZIP_OR_DEFLATE = zlib.MAX_WBITS | 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call of `fetch` asks for; its fields are those of `Client.fetch`."""

    url: str
    method: str
    content: bytes | str | None
    headers: Mapping[str, str]
    max_price: str | int | None
    key: str
    timeout_s: float
    max_time_s: float
    bytes_max: int


def fetched(wanted: Wanted, buyer: Buyer, web: httpx.BaseTransport) -> httpx.Response:
    """The answer, paid for by `buyer` if it wants that; raises what `Client.fetch` does."""
    # One of its own each time: no cookie of one resource is sent with another purchase.
    http = httpx.Client(
        transport=PayingTransport(_Beside(buyer), web),
        follow_redirects=True,
        trust_env=False,
        timeout=wanted.timeout_s,
    )
    request = _request(http, wanted)
    with time_limit(wanted.max_time_s):
        try:
            response = http.send(request, stream=True)
            try:
                body = Body(response, wanted.bytes_max)
                for chunk in response.iter_raw():
                    body.feed(chunk)
            finally:
                response.close()
        except Exception as error:
            _raise_if_paid(request, error)
            raise
    return body.response()


async def async_fetched(
    wanted: Wanted, buyer: AsyncBuyer, web: httpx.AsyncBaseTransport
) -> httpx.Response:
    """`fetched`, on asyncio."""
    http = httpx.AsyncClient(
        transport=AsyncPayingTransport(_AsyncBeside(buyer), web),
        follow_redirects=True,
        trust_env=False,
        timeout=wanted.timeout_s,
    )
    request = _request(http, wanted)
    with time_limit(wanted.max_time_s):
        try:
            response = await http.send(request, stream=True)
            try:
                body = Body(response, wanted.bytes_max)
                async for chunk in response.aiter_raw():
                    body.feed(chunk)
            finally:
                await response.aclose()
        except Exception as error:
            _raise_if_paid(request, error)
            raise
    return body.response()


@dataclass(frozen=True, slots=True)
class _Beside:
    """The time of the resource stands still meanwhile: what is signed is sent, too."""

    buyer: Buyer

    def buy(self, order: Order) -> Signed:
        with beside():
            return self.buyer.buy(order)

    def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        with beside():
            return self.buyer.report(signed, receipt)


@dataclass(frozen=True, slots=True)
class _AsyncBeside:
    buyer: AsyncBuyer

    async def buy(self, order: Order) -> Signed:
        with beside():
            return await self.buyer.buy(order)

    async def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        with beside():
            return await self.buyer.report(signed, receipt)


def _request(http: httpx.Client | httpx.AsyncClient, wanted: Wanted) -> httpx.Request:
    """The request that is sent.

    Raises:
        InvalidInput: the URL, the method, a header, the price or a time is none.
    """
    extensions: dict[str, Any] = {KEY: wanted.key}
    if wanted.max_price is not None:
        try:
            parse_usd(wanted.max_price)
        except AmountError as error:
            raise InvalidInput("max_price", str(error)) from error
        extensions[MAX_PRICE] = wanted.max_price
    if not wanted.max_time_s > 0:
        raise InvalidInput("max_time_s", "is a number of seconds above 0")
    if not _TOKEN.fullmatch(wanted.method):
        raise InvalidInput("method", f"{wanted.method[:SHOWN]!r} is none")
    for name, value in wanted.headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OURS:
            raise InvalidInput("headers", f"{name[:SHOWN]!r} cannot be sent as it is")
    url, shown = wanted.url, repr(wanted.url[:SHOWN])
    asked = {"Accept-Encoding": "identity", **wanted.headers}
    try:
        request = http.build_request(
            wanted.method.upper(),
            url,
            content=wanted.content,
            headers=asked,
            extensions=extensions,
        )
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise InvalidInput("url", f"{shown} cannot be asked for: {error}") from error
    if request.url.scheme not in ("http", "https") or not request.url.host:
        raise InvalidInput("url", f"{shown} does not begin with http:// or https:// and a host")
    if (request.url.port or 0) > _PORT_MAX:
        raise InvalidInput("url", f"{shown} has no port")
    return request


def _raise_if_paid(request: httpx.Request, error: Exception) -> None:
    """Raise `PaymentOutcomeUnknown` if something was signed before an answer broke off, by whatever
    a server can bring about: a redirect to a port that is none is no error of httpx."""
    if isinstance(error, (ApiError, PaymentError)):
        return
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
