"""Routes that cost something: HTTP's side of `engine/selling`, in x402's second version.

    gate = Gate(till)

    @app.get("/report")
    @gate.sells("$0.05")
    async def report() -> dict[str, str]:
        return {"bought by": get_payer()}

The gate is around the function of a route, behind the router and behind what FastAPI checks: there
is no way of writing a path that leads to the function without it, and what is refused there was
never paid. An answer is not kept by anybody on its way (`private, no-store`).
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import BackgroundTasks, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from api.gate import header
from api.gate.requests import body_of
from api.rest import errors
from engine.errors import TallystickError
from engine.selling.currency import Cost, Exact, read_cost
from engine.selling.refusals import PaymentRefused
from engine.storage.limits import TooLarge
from engine.storage.session import Session, unpaid

if TYPE_CHECKING:
    from engine.selling.sale import Sale
    from engine.selling.till import Ready, Till

PRIVATE = {"Cache-Control": "private, no-store", "Vary": "PAYMENT-SIGNATURE, SIGN-IN-WITH-X"}
UNPAID_CODE = "payment_required"
_HOST = re.compile(r"[A-Za-z0-9._~:\[\]-]+")

BODY_BYTES_MAX = 2**20
"""The body of a request for what `Gate.sells` sells, unless it is told otherwise."""
Work = Callable[["Sale | None"], Awaitable[Any]]
"""What is sold; without a sale where it is free."""
Visit = Callable[[Session], Awaitable[Any]]
"""What somebody who paid before may have by signing in."""


class _Asked(NamedTuple):
    """What FastAPI hands to whoever asks for it: `response` is what goes into the one that it makes
    of what is returned."""

    request: Request
    response: Response
    tasks: BackgroundTasks


async def _asked(request: Request, response: Response, tasks: BackgroundTasks) -> _Asked:
    return _Asked(request, response, tasks)


_FROM_FASTAPI = inspect.Parameter(
    "_gate_asked", inspect.Parameter.KEYWORD_ONLY, annotation=_Asked, default=Depends(_asked)
)
"""By a dependency, because a function is handed each of them only once, and may want its own."""


class Gate:
    """Sells routes of any FastAPI application. `till` is opened by the first request if it is
    something to call, which then happens on a thread."""

    def __init__(self, till: "Till | Callable[[], Till]") -> None:
        self._till = till
        self._opening: asyncio.Future[Till] | None = None

    def sells(
        self, *accepts: str | Exact, body_bytes_max: int = BODY_BYTES_MAX
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Have a function of a route cost something: dollars (`$0.05`) in whatever the till takes,
        `Exact` prices by network, or `free`.

        Who paid is the current payer in it (`engine/storage/session.py`); nobody is, if it is free.
        It may read JSON, not a form. A stream is paid for when it begins, and knows no payer.

        Raises:
            AmountError, InvalidInput: see `read_cost`.
            ValueError: a network is named on which the till, if it is open, takes nothing. Of one
                that is opened later such a network is not offered.
            TypeError: (of what is decorated) it is a generator.
        """
        cost = read_cost(accepts)
        if cost is not None and not callable(self._till):
            self._till.methods.check(cost)

        def selling(function: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__name__} is a stream, which cannot be sold")

            @wraps(function)
            async def sold(*, _gate_asked: _Asked, **named: Any) -> Any:
                request, work = _gate_asked.request, partial(_called, function, named)
                try:
                    body = await body_of(request, body_bytes_max, "body")
                except TooLarge as error:
                    return private(errors.answer(error))
                return await self.sell(request, cost, work, body=body, into=_gate_asked)

            signature = inspect.signature(function)
            parameters = [*signature.parameters.values(), _FROM_FASTAPI]
            sold.__signature__ = signature.replace(  # type: ignore[attr-defined]
                parameters=parameters
            )
            return sold

        return selling

    async def sell(
        self,
        request: Request,
        cost: Cost | None,
        work: Work,
        *,
        body: bytes,
        ready: "Ready | None" = None,
        into: _Asked | None = None,
        visit: Visit | None = None,
    ) -> Any:
        """Do the `work` once it is paid for, with the payer as the current one.

        A payment is for this method, path, query and `body`. `ready` is as in `Till.open`. What
        `work` returns is returned; if that is no response, the headers go `into` the one that
        FastAPI will make of it. `visit` is done for who signs in and does not pay, where the till
        knows visits; the method is not in what they sign, so let it only read.
        """
        try:
            if cost is None:
                with unpaid():
                    return private(await work(None), into)
            return await self._sell(request, cost, work, body, ready, into, visit)
        except TallystickError as error:
            return private(errors.answer(error))
        except HTTPException as error:
            error.headers = {**(error.headers or {}), **PRIVATE}
            raise

    async def _sell(
        self,
        request: Request,
        cost: Cost,
        work: Work,
        body: bytes,
        ready: "Ready | None",
        into: _Asked | None,
        visit: Visit | None,
    ) -> Any:
        till = await self._opened()
        target = None if visit is None else _target(request)
        required = partial(self._required, till, request, cost, target)
        try:
            payment = header.read_payment(request.headers)
            if payment is None:
                payer = None
                if target is not None:
                    told = header.read_sign_in(request.headers)
                    payer = None if told is None else await till.enter(told, target)
                if visit is None or payer is None:
                    return required(UNPAID_CODE, "Payment required")
                with till.storage.paid_by(payer):
                    return private(await visit(till.storage.session(payer)), into)
            sale = await till.open(payment, cost, _bound(request, body), ready)
        except PaymentRefused as refusal:
            return required(refusal.code, refusal.message)
        try:
            with till.storage.paid_by(sale.payer):
                result = await self._done(sale, work)
        except HTTPException as error:
            await sale.left()
            error.headers = {**(error.headers or {}), **_receipt(sale)}
            raise
        except Exception:
            await sale.left()
            raise
        if isinstance(result, TallystickError):
            await sale.left()
            return _paid(private(errors.answer(result)), sale)
        if await request.is_disconnected():
            await sale.left()  # nobody has heard it: the same payment may ask again
        elif isinstance(result, StreamingResponse):
            await sale.used()  # who hangs up before its end has heard all but that
        else:
            _afterwards(sale, result, into)
        return _paid(private(result, into), sale, into)

    async def _done(self, sale: "Sale", work: Work) -> Any:
        """What the work returns; what it was refused, if it was."""
        try:
            result = await work(sale)
            await sale.hold()
        except TallystickError as error:
            return error
        return result

    async def _opened(self) -> "Till":
        if not callable(self._till):
            return self._till
        if self._opening is None:  # all that come now wait for one try, and hear what came of it
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._till))
            self._opening.add_done_callback(self._was_opened)
        return await asyncio.shield(self._opening)

    def _was_opened(self, opening: "asyncio.Future[Till]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._till = opening.result()

    def _required(
        self,
        till: "Till",
        request: Request,
        cost: Cost,
        visit: str | None,
        code: str,
        message: str,
    ) -> Response:
        error = None if code == UNPAID_CODE else code
        required = till.required(cost, _url(request), error, visit=visit)
        return JSONResponse(
            errors.error_body(code, message),
            402,
            {**PRIVATE, header.PAYMENT_REQUIRED: header.encoded_required(required)},
        )


async def _called(
    function: Callable[..., Any], named: Mapping[str, Any], _sale: "Sale | None"
) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(**named)
    return await run_in_threadpool(function, **named)


def _bound(request: Request, body: bytes) -> str:
    """What a payment is for, whatever host the request named.

    Once it is settled a payment can be read on the chain. Whoever sent an Idempotency-Key that
    nobody can guess is the only one who can ask again.
    """
    from engine.selling.till import digest_of

    asked = request.method, request.scope["path"], request.scope["query_string"], body
    return digest_of(*asked, request.headers.get("Idempotency-Key", ""))


def _url(request: Request) -> str:
    """As it was asked for, in ASCII."""
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        host, port = request.scope.get("server") or ("", None)
        host = host if port is None else f"{host}:{port}"
    return f"{request.scope['scheme']}://{host}{_target(request)}"


def _target(request: Request) -> str:
    """Path and query, as they were asked for."""
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    told: bytes = path.partition(b"?")[0] + query
    return told.decode("ascii", "replace")


def private(result: Any, into: _Asked | None = None) -> Any:
    """The same answer, which nobody on its way may keep."""
    if isinstance(result, Response):
        result.headers.update(PRIVATE)
    elif into is not None:
        into.response.headers.update(PRIVATE)
    return result


def _afterwards(sale: "Sale", result: Any, into: _Asked | None) -> None:
    """Have it noted that the answer was sent, before anything else is done afterwards: whatever
    fails there, the payment buys nothing more."""
    tasks = BackgroundTasks() if into is None else into.tasks
    tasks.tasks.insert(0, BackgroundTask(sale.used))
    if isinstance(result, Response):
        if result.background is not None:
            tasks.tasks.append(result.background)
        result.background = tasks
    else:
        assert into is not None, "FastAPI makes the answer"


def _paid(result: Any, sale: "Sale", into: _Asked | None = None) -> Any:
    told = result if isinstance(result, Response) or into is None else into.response
    told.headers.update(_receipt(sale))
    return result


def _receipt(sale: "Sale") -> dict[str, str]:
    """What says that it was settled."""
    return {header.PAYMENT_RESPONSE: header.encoded_response(sale.settlement)}
