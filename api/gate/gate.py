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
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from api.gate import header
from api.rest import errors
from engine.errors import TallystickError
from engine.selling.currency import Price, read_price
from engine.selling.refusals import PaymentRefused
from engine.storage.session import Session, unpaid

if TYPE_CHECKING:
    from engine.selling.till import Ready, Sale, Till

PRIVATE = {"Cache-Control": "private, no-store", "Vary": "PAYMENT-SIGNATURE, SIGN-IN-WITH-X"}
UNPAID_CODE = "payment_required"

_FROM_FASTAPI = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    for name, kind in {
        "_gate_request": Request,
        "_gate_response": Response,
        "_gate_tasks": BackgroundTasks,
    }.items()
]
"""What FastAPI hands to the function of a route that asks for it."""
Work = Callable[["Sale | None"], Awaitable[Any]]
"""What is sold; without a sale where it is free."""
Visit = Callable[[Session], Awaitable[Any]]
"""What somebody who paid before may have by signing in."""


class Gate:
    """Sells routes of any FastAPI application. `till` is opened by the first request if it is
    something to call, which then happens on a thread."""

    def __init__(self, till: "Till | Callable[[], Till]") -> None:
        self._till = till
        self._opening = asyncio.Lock()

    def sells(self, price: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Have a function of a route cost something: dollars (`$0.05`), or `free`.

        Who paid is the current payer in it (`engine/storage/session.py`); nobody is, if it is free.
        It may read JSON, not a form.

        Raises:
            AmountError: it is no price.
            TypeError: (of what is decorated) it is a generator.
        """
        cost = read_price(price)

        def selling(function: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__name__} is a stream, which cannot be sold")

            @wraps(function)
            async def sold(
                *,
                _gate_request: Request,
                _gate_response: Response,
                _gate_tasks: BackgroundTasks,
                **named: Any,
            ) -> Any:
                work = partial(_called, function, named)
                body = await _gate_request.body()
                return await self.sell(
                    _gate_request, cost, work, body=body, into=(_gate_response, _gate_tasks)
                )

            signature = inspect.signature(function)
            parameters = [*signature.parameters.values(), *_FROM_FASTAPI]
            sold.__signature__ = signature.replace(  # type: ignore[attr-defined]
                parameters=parameters
            )
            return sold

        return selling

    async def sell(
        self,
        request: Request,
        price: Price,
        work: Work,
        *,
        body: bytes,
        ready: "Ready | None" = None,
        into: tuple[Response, BackgroundTasks] | None = None,
        visit: Visit | None = None,
    ) -> Any:
        """Do the `work` once it is paid for, with the payer as the current one.

        A payment is for this method, path, query and `body`. `ready` is as in `Till.open`. What
        `work` returns is returned; if that is no response, the headers go `into` the one that
        FastAPI will make of it. `visit` is done for who signs in and does not pay, where the till
        knows visits; the method is not in what they sign, so let it only read.
        """
        try:
            if price is None:
                with unpaid():
                    return private(await work(None), into)
            return await self._sell(request, price, work, body, ready, into, visit)
        except TallystickError as error:
            return private(errors.answer(error))
        except HTTPException as error:
            error.headers = {**(error.headers or {}), **PRIVATE}
            raise

    async def _sell(
        self,
        request: Request,
        price: int,
        work: Work,
        body: bytes,
        ready: "Ready | None",
        into: tuple[Response, BackgroundTasks] | None,
        visit: Visit | None,
    ) -> Any:
        till = await self._opened()
        target = None if visit is None else _target(request)
        required = partial(self._required, till, request, price, target)
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
            sale = await till.open(payment, price, _bound(request, body), ready)
        except PaymentRefused as refusal:
            return required(refusal.code, refusal.message)
        try:
            with till.storage.paid_by(sale.payer):
                result = await self._done(sale, work)
        except Exception:
            await sale.left()
            raise
        if isinstance(result, TallystickError):
            await sale.left()
            return _paid(private(errors.answer(result)), sale)
        if await request.is_disconnected():
            await sale.left()  # nobody has heard it: the same payment may ask again
        elif isinstance(result, Response):
            assert result.background is None, "what is sold has no background of its own"
            result.background = BackgroundTask(sale.used)
        else:
            assert into is not None
            into[1].add_task(sale.used)
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
        async with self._opening:
            if callable(self._till):
                self._till = await asyncio.to_thread(self._till)
            return self._till

    def _required(
        self,
        till: "Till",
        request: Request,
        price: int,
        visit: str | None,
        code: str,
        message: str,
    ) -> Response:
        error = None if code == UNPAID_CODE else code
        required = till.required(price, _url(request), error, visit=visit)
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
    return f"{request.scope['scheme']}://{request.url.netloc}{_target(request)}"


def _target(request: Request) -> str:
    """Path and query, as they were asked for."""
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    told: bytes = path.partition(b"?")[0] + query
    return told.decode("ascii", "replace")


def private(result: Any, into: tuple[Response, BackgroundTasks] | None = None) -> Any:
    """The same answer, which nobody on its way may keep."""
    if isinstance(result, Response):
        result.headers.update(PRIVATE)
    elif into is not None:
        into[0].headers.update(PRIVATE)
    return result


def _paid(result: Any, sale: "Sale", into: tuple[Response, BackgroundTasks] | None = None) -> Any:
    told = result if isinstance(result, Response) or into is None else into[0]
    told.headers[header.PAYMENT_RESPONSE] = header.encoded_response(sale.settlement)
    return result
