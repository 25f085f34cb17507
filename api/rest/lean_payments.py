"""The short way for payments: plainly asked for, answered without the machinery for all else.

A request is plain if it asks for a payment by HTTP/1.1, has only headers that are known here, each
once, in printable ASCII, says how long its JSON body is, and is acceptable in every field. It goes
through the same body model, the same ledger and the same answers as the documented route.

Whoever sends an agent's key beside a session's token is counted, and that is not plain.

Any other request goes byte for byte, before anything was done for it, to uvicorn's own protocol
and so to the documented routes: whatever is refused is refused by them. See
docs/decisions/0015-lean-payment-route.md.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import h11
from fastapi.responses import Response
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from api.rest import errors
from api.rest.auth import SessionTokens, find_key_holder, smart_payer
from api.rest.body_limit import BODY_BYTES_MAX
from api.rest.commits import Commits
from api.rest.exact_json import loads
from api.rest.idempotency import in_callers_words
from api.rest.routes import payments
from api.rest.schemas import CreatePayment, PaymentBody, SmartPayment
from engine.engine import Engine
from engine.errors import Conflict
from engine.ledger.ask import IDEMPOTENCY_KEY_LENGTH_MAX
from engine.ledger.payment import Payment
from engine.workspaces.agent_access import is_agent_key

_HEADERS = frozenset(
    (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "forwarded",
        "host",
        "idempotency-key",
        "sec-fetch-mode",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-idempotency-key",
        "x-real-ip",
        "x-request-id",
        "x-session-token",
    )
)
"""What clients, proxies and tracers usually send. What changes nothing here is not looked at."""
_BEARER = "Bearer "
HEAD_BYTES_MAX = 8_192
_HEAD_END = b"\r\n\r\n"
_LENGTH_DIGITS_MAX = len(str(BODY_BYTES_MAX))


class Head(NamedTuple):
    """The first line and headers of a plain request, and how many bytes it has with its body."""

    line: str
    headers: Mapping[str, str]
    size: int


class Asked(NamedTuple):
    """What a caller asked for, and how the caller is told of it."""

    body: PaymentBody
    answer: Callable[[Payment], Response]


Asking = tuple["Future[Payment]", Asked]
"""What the ledger decides. A future that led back to itself would be left to the collector."""


class Desk:
    """Asks the ledger for payments as the documented routes do."""

    def __init__(self, engine: Engine, tokens: SessionTokens) -> None:
        self._engine = engine
        self._tokens = tokens

    def _check_recognised(self, *credentials: str | None) -> None:
        """Leave to the documented routes what a database server has to be asked: they do not have
        the event loop wait for it.

        Raises:
            LookupError: it is so.
        """
        if self._engine.database.shared:
            for each in filter(None, credentials):
                if self._tokens.known(each) is None:
                    raise LookupError("somebody who was not recognised before")

    def payment(self, headers: Mapping[str, str], content: bytes) -> Asking:
        """`POST /api/v1/payments`.

        Raises:
            TallystickError, ValidationError: nothing was asked for.
        """
        body = CreatePayment.model_validate(loads(content))
        token = headers.get("x-session-token") or _bearer(headers)
        self._check_recognised(token)
        holder = self._tokens.holder(token)
        future = payments.ask_payment(self._engine, holder, body, _key(headers))
        return future, Asked(body, payments.payment_answer)

    def smart_payment(self, headers: Mapping[str, str], content: bytes) -> Asking:
        """`POST /api/v1/ai/smart-payment`.

        Raises:
            TallystickError, ValidationError: nothing was asked for.
        """
        body = SmartPayment.model_validate(loads(content))
        bearer, token = _bearer(headers), headers.get("x-session-token")
        self._check_recognised(bearer, body.session_token or token)
        caller = find_key_holder(self._engine, bearer)
        holder = smart_payer(self._tokens, caller, body.session_token, token, bearer)
        future = payments.ask_smart_payment(self._engine, holder, body, _key(headers))
        return future, Asked(body, payments.smart_payment_answer)


_ROUTES: Mapping[str, Callable[[Desk, Mapping[str, str], bytes], Asking]] = {
    "POST /api/v1/payments HTTP/1.1": Desk.payment,
    "POST /api/v1/ai/smart-payment HTTP/1.1": Desk.smart_payment,
}
_STARTS = tuple(line.encode() + b"\r\n" for line in _ROUTES)


class LeanPayments(H11Protocol):
    """One connection. What is plain is answered here, everything else by `H11Protocol`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        application: Any = self.config.app
        state = application.state
        self._desk = Desk(state.engine, state.tokens)
        self._commits: Commits = state.commits
        self._kept = b""  # the beginning of a plain request, or what came while one was answered
        self._answering = False
        self._last = False  # of this connection's answers

    def data_received(self, data: bytes) -> None:
        """Answer a plain request, or let h11 have its bytes."""
        if self._kept:
            data = self._kept + data
        if self._answering:
            self._kept = data
            self.flow.pause_reading()
            return
        head = (
            _read_head(data) if data.startswith(_STARTS) and self._is_between_requests() else None
        )
        if head is not None and len(data) < head.size:
            self._unset_keepalive_if_required()
            self._kept = data
            return
        self._kept = b""
        if head is None or len(data) > head.size or not self._ask(head, data):
            self._leave(data)

    def _leave(self, data: bytes) -> None:
        super().data_received(data)

    def shutdown(self) -> None:
        """Close once what was begun is answered."""
        if self._answering:
            self._last = True
            return
        if self._kept:
            kept, self._kept = self._kept, b""
            self._leave(kept)
        super().shutdown()

    def _is_between_requests(self) -> bool:
        connection = self.conn
        return (
            connection.our_state is h11.IDLE
            and connection.their_state is h11.IDLE
            and connection.trailing_data == (b"", False)
            and not self.flow.write_paused  # h11's protocol waits for a caller that does not read
        )

    def _ask(self, head: Head, data: bytes) -> bool:
        """Ask the ledger, unless the documented route has something to say to this request."""
        content = data[data.index(_HEAD_END) + len(_HEAD_END) :]
        try:
            future, asked = _ROUTES[head.line](self._desk, head.headers, content)
        except Exception:  # noqa: BLE001 (it asks again, and tells the caller or the log)
            return False
        self._unset_keepalive_if_required()
        self._answering = True
        self._commits.tell(future, lambda decided: self._answer(asked, decided))
        return True

    def _answer(self, asked: Asked, decided: "Future[Payment]") -> None:
        try:
            answer = asked.answer(decided.result())
        except Conflict as conflict:
            answer = errors.answer(in_callers_words(conflict, asked.body))
        except Exception as error:  # noqa: BLE001 (whatever it is, somebody waits for an answer)
            answer = errors.answer(error)
        self._send(answer)

    def _send(self, answer: Response) -> None:
        self._answering = False
        kept, self._kept = self._kept, b""
        if self.transport.is_closing():  # the caller is gone
            return
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%b\r\n%b"
            % (
                answer.status_code,
                STATUS_PHRASES[answer.status_code],
                b"".join(b"%b: %b\r\n" % header for header in headers),
                bytes(answer.body),
            )
        )
        if self._last or CLOSE_HEADER[0] in dict(answer.raw_headers):
            self.transport.close()
            return
        self.on_response_complete()
        if kept:
            self.data_received(kept)


def _read_head(data: bytes) -> Head | None:
    """The head of a plain request; None if it is none, or not all there."""
    end = data.find(_HEAD_END, 0, HEAD_BYTES_MAX)
    if end < 0:
        return None
    try:
        line, *fields = data[:end].decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        name = name.lower()
        if name not in _HEADERS or name in headers or not colon or not field.isprintable():
            return None
        headers[name] = value.strip(" ")
    length = headers.get("content-length", "")
    if not _is_plain(headers) or not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        return None
    if not 0 < int(length) <= BODY_BYTES_MAX:
        return None
    return Head(line, headers, end + len(_HEAD_END) + int(length))


def _is_plain(headers: Mapping[str, str]) -> bool:
    return (
        "host" in headers
        and headers.get("content-type") == "application/json"
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and headers.get("authorization", _BEARER).startswith(_BEARER)
        and not is_agent_key(_bearer(headers))
        and not ("idempotency-key" in headers and "x-idempotency-key" in headers)
        and 0 < len(_key(headers) or "-") <= IDEMPOTENCY_KEY_LENGTH_MAX
    )


def _bearer(headers: Mapping[str, str]) -> str | None:
    return headers.get("authorization", _BEARER).removeprefix(_BEARER).strip() or None


def _key(headers: Mapping[str, str]) -> str | None:
    return headers.get("idempotency-key", headers.get("x-idempotency-key"))
