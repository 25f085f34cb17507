"""JSON in and out without losing a digit of money.

A JSON number that is no plain integer is kept as its text (`Number`), so that an amount is read as
a decimal and never as a float. Refused: bytes that are not UTF-8, a duplicate key, more than
`DEPTH_MAX` containers inside one another, and half of a surrogate pair, with which no answer could
be written.
"""

import json
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from engine.audit.canonical import DEPTH_MAX
from engine.errors import InvalidInput
from engine.policy.money import plain_decimals

INTEGER_DIGITS_MAX = 100
AT_ONCE_BYTES_MAX = 65_536
"""A longer body is parsed on a thread, since that takes a third of a second for a mebibyte, whoever
sent it: nobody else would be answered meanwhile."""
_PARSING = CapacityLimiter(1)
_encode = msgspec.json.Encoder().encode
_TEXTS = msgspec.json.Decoder(dict[str, str | bool | None])


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is no plain integer, NaN and the infinities too, as it was written."""

    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A body that cannot be read. Who asks is settled first, so it is refused by `Body`."""

    reason: InvalidInput


def loads(body: bytes) -> Any:
    """Parse a request body.

    Raises:
        InvalidInput: it is not JSON in UTF-8 as the module describes it.
    """
    if (plain := _plain(body)) is not None:
        return plain
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except RecursionError:
        raise _refused("body", _TOO_DEEP) from None
    except ValueError as error:
        raise _refused("body", "is not valid JSON in UTF-8") from error
    # Nothing is deeper than there are brackets, and half of a surrogate pair is always an escape.
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX and b"\\u" not in body:
        return value
    for field, member in value.items() if isinstance(value, dict) else (("body", value),):
        _check(field, "body", 1)
        _check(member, field, 1)
    return value


async def parsed(body: bytes) -> Any:
    """What `loads` makes of a body, while others are answered.

    Raises:
        InvalidInput: see `loads`.
    """
    if len(body) <= AT_ONCE_BYTES_MAX:
        return loads(body)
    return await to_thread.run_sync(loads, body, limiter=_PARSING)


def dumps(value: Any) -> str:
    """Write JSON that callers gave us back as text; a `Number` becomes the nearest double.

    Raises:
        ValueError: a number is beyond every double.
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_double)


class JsonAnswer(JSONResponse):
    """An answer whose money is in numbers that every JSON client reads exactly."""

    def render(self, content: Any) -> bytes:
        """RFC 8259, in UTF-8."""
        written = _encode(content)
        # Nearly always: an answer without exponents, which need not be looked at as a text.
        return written if b"e-" not in written else plain_decimals(written.decode()).encode()


class ExactJsonRoute(APIRoute):
    """A route that reads its body with `loads`, and answers amounts without exponents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand the route a request of ours."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await handler(_ExactRequest(request.scope, request.receive))
            # What FastAPI wrote itself; a `JsonAnswer` is written without them.
            if type(response) is Response and response.media_type == "application/json":
                response.body = plain_decimals(bytes(response.body).decode()).encode()
                response.headers["Content-Length"] = str(len(response.body))
            return response

        return handle


class _ExactRequest(Request):
    async def json(self) -> Any:
        try:
            return await parsed(await self.body())
        except InvalidInput as reason:
            return Unreadable(reason)


_TOO_DEEP = f"is more than {DEPTH_MAX} levels deep"


def _plain(body: bytes) -> dict[str, str | bool | None] | None:
    """An object of texts without escapes, which most bodies are; None: the slower way has to tell.

    Without escapes every quotation mark belongs to a name or a text, so no name was there twice.
    """
    if b"\\" in body:
        return None
    try:
        value = _TEXTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    texts = sum(type(member) is str for member in value.values())
    return value if body.count(b'"') == 2 * (len(value) + texts) else None


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput(field, message, code="invalid_json")


def _integer(text: str) -> int | Number:
    # An int would forget the sign of -0.
    return Number(text) if text == "-0" or len(text) > INTEGER_DIGITS_MAX else int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("body", "holds an object with a duplicate key")
    return found


_DECODER = json.JSONDecoder(
    parse_float=Number, parse_int=_integer, parse_constant=Number, object_pairs_hook=_object
)


def _check(value: Any, field: str, depth: int) -> None:
    """Refuse what could not be written again; `depth` is that of what holds `value`."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refused(field, "holds half of a surrogate pair") from None
    elif isinstance(value, (dict, list)):
        if depth >= DEPTH_MAX:
            raise _refused(field, _TOO_DEEP)
        for item in value:
            _check(item, field, depth + 1)
        if isinstance(value, dict):
            for item in value.values():
                _check(item, field, depth + 1)


def _double(number: Number) -> float:
    value = float(number.text)
    if not math.isfinite(value):
        raise ValueError("holds a number that is beyond every double")
    return value
