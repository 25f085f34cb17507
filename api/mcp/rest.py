"""The product's own REST API, asked in one caller's name."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import httpx

SESSIONS = "/api/v1/ai/sessions"
OWN = "self"
"""What the holder of a token may call its session."""

NO_TALLYSTICK = "the answer is not a Tallystick's: is the URL of the server right?"

_FACTS = ("approval_id", "payment_id")


class Refused(Exception):
    """What a caller hears in place of an answer: a stable code, a sentence for people, and facts.

    `facts` can be `field`, `rule`, `status` (of HTTP), `approval_id`, `payment_id` and
    `idempotency_key`.
    """

    def __init__(self, code: str, message: str, **facts: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.headers: Mapping[str, str] = {}
        """Of the API's answer, if it was one."""
        self.facts = {name: value for name, value in facts.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """As the result of a tool."""
        return {"code": self.code, "message": self.message, **self.facts}


class Heard(NamedTuple):
    """A good answer. Its numbers with a fraction are `Decimal`, as they were written."""

    body: Any
    headers: Mapping[str, str]


class Rest:
    """Asks by `http`, whose headers are the credentials of one caller."""

    def __init__(self, http: httpx.AsyncClient, headers: Mapping[str, str] | None = None) -> None:
        self._http = http
        self._headers = headers or {}

    def with_headers(self, **headers: str) -> "Rest":
        """The same caller, who sends these with every request."""
        return Rest(self._http, {**self._headers, **headers})

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Heard:
        """The answer to one request.

        Raises:
            Refused: as the API says it, or there is no answer (`unreachable`: nothing was done;
                `no_answer`: perhaps it was).
        """
        headers = dict(self._headers)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = _encoded(body)
        try:
            answer = await self._http.request(method, path, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            why = f"the server at {self._http.base_url} cannot be reached: {error}"
            raise Refused("unreachable", why) from error
        except httpx.HTTPError as error:
            why = f"the server did not answer ({type(error).__name__})"
            raise Refused("no_answer", why, idempotency_key=idempotency_key) from error
        told = _decoded(answer)
        if answer.is_success:
            if told is not None:
                return Heard(told, answer.headers)
            refusal = Refused("http_error", NO_TALLYSTICK)
        else:
            refusal = _refusal(answer.status_code, told, idempotency_key)
        refusal.headers = answer.headers
        raise refusal


def digits(amount: Decimal | float) -> str:
    """A number as the API answers it, in plain decimal digits: exactly what it wrote."""
    return format(Decimal(str(amount)), "f")


def dollars(amount: Decimal | float | None) -> str | None:
    """The same of a limit; None (unlimited) stays None."""
    return None if amount is None else digits(amount)


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        # In ASCII, so that what is not UTF-8 is refused by the API, which says where it is.
        return json.dumps(body).encode()
    except (RecursionError, ValueError):
        raise Refused("invalid_parameter", "the arguments cannot be written as JSON") from None


def _decoded(answer: httpx.Response) -> Any:
    try:
        return json.loads(answer.content, parse_float=Decimal)
    except ValueError:
        return None


def _refusal(status: int, told: Any, idempotency_key: str | None) -> Refused:
    if not isinstance(told, dict) or not {"code", "message"} <= told.keys():
        return Refused("http_error", f"the server answered {status}", status=status)
    details = told.get("details") or {}
    return Refused(
        told["code"],
        told["message"],
        status=status,
        field=details.get("field"),
        rule=details.get("rule"),
        **{name: told.get(name) for name in _FACTS},
        idempotency_key=idempotency_key if told.get("approval_id") or status >= 500 else None,
    )
