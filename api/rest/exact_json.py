"""JSON in and out without losing a digit of money.

A JSON number with a point or an exponent is kept as its text (`Number`), so that an amount is read
as a decimal and never as a float. Duplicate keys, NaN and absurdly long integers are refused.
"""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from engine.errors import InvalidInput

INTEGER_DIGITS_MAX = 100


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number that is not an integer, as it was written."""

    text: str


def loads(body: bytes) -> Any:
    """Parse a request body.

    Raises:
        InvalidInput: it is not strict JSON in UTF-8.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_float=Number,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        message = str(error) if isinstance(error, _RefusedJsonError) else "is not valid JSON"
        raise InvalidInput("body", message, code="invalid_json") from error


def dumps(value: Any) -> str:
    """Write JSON that callers gave us back as text; a `Number` becomes the nearest double."""
    return json.dumps(value, sort_keys=True, default=lambda number: float(number.text))


class ExactJsonRoute(APIRoute):
    """A route that reads its body with `loads`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand the route a request of ours."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_ExactRequest(request.scope, request.receive))

        return handle


class _ExactRequest(Request):
    async def json(self) -> Any:
        return loads(await self.body())


class _RefusedJsonError(ValueError):
    pass


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX:
        raise _RefusedJsonError("holds an integer of absurd length")
    return int(text)


def _refuse_constant(text: str) -> None:
    raise _RefusedJsonError(f"holds {text}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedJsonError("holds an object with a duplicate key")
    return found
