"""What payers store, over HTTP: every verb costs what `Prices` say.

    app.include_router(store_routes(gate, storage))

A value is the body, as it is. Whatever would be refused is refused before anything is settled: what
is unacceptable of anybody at once, what depends on the payer (quota, cursor, a key that is not
there) when a valid payment tells who that is.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from api.gate.answers import (
    DeletedAnswer,
    DeletedManyAnswer,
    FoundAnswer,
    PageAnswer,
    PutAnswer,
    StoredManyAnswer,
)
from api.gate.gate import Gate, private
from api.gate.requests import KEY, check_path, read_body, read_object
from api.rest import errors
from api.rest.answers import ErrorAnswer
from engine.errors import InvalidInput, NotFound, TallystickError, Unauthenticated
from engine.selling.currency import Price
from engine.storage.limits import Limits, check_ttl
from engine.storage.session import Session, Storage

if TYPE_CHECKING:
    from engine.selling.till import Sale

PREFIX = "/v1/store"
_PASSIVE = {
    # Whatever somebody stored, a browser shall not run it as a page of this server.
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    402: {"model": ErrorAnswer, "description": "Pay as PAYMENT-REQUIRED says"},
    **errors.documented(409, 413, 422, 503),
}
_TEXT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_KEYS = {"keys": {"type": "array", "items": {"type": "string"}, "minItems": 1}}
_ENTRIES = {
    "entries": {"type": "object", "additionalProperties": {"type": "string"}},
    "ttl_ms": {"type": ["integer", "null"], "minimum": 0},
}
_ONE = f"/{{key:{KEY}}}"
_MAY_BE_ABSENT = errors.documented(404)
_VALUE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI request body."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    schema["required"] = [next(iter(properties))]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@dataclass(frozen=True, slots=True)
class Prices:
    """Of each verb, in micro-USD; of a batch, of each entry. A verb that is `FREE` knows no payer,
    and so no store: it is answered 401."""

    put: Price = 10_000
    get: Price = 1_000
    list: Price = 1_000
    delete: Price = 10_000


DEFAULT_PRICES = Prices()


@dataclass(frozen=True, slots=True)
class _Order:
    """A request that is acceptable, and what is done for it. `ready` raises what speaks against it
    for one payer, and keeps room; `visit` is the same for who signs in."""

    price: Price
    body: bytes
    work: Callable[["Sale"], Awaitable[Response]]
    ready: Callable[[Session, str], Awaitable[None]] | None = None
    visit: Callable[[Session], Awaitable[Response]] | None = None


def store_routes(
    gate: Gate, storage: Storage | Callable[[], Storage], prices: Prices = DEFAULT_PRICES
) -> APIRouter:
    """The routes below `/v1/store`, of the store that the gate's till has."""
    router = APIRouter(prefix=PREFIX, tags=["store"], responses=_ANSWERS)
    counter = _Counter(gate, storage, prices)

    def add(method: str, path: str, function: Any, summary: str, **documented: Any) -> None:
        router.add_api_route(path, function, methods=[method], summary=summary, **documented)

    page, one = {"response_model": PageAnswer}, {"responses": _VALUE | _MAY_BE_ABSENT}
    add("GET", "", counter.list_page, "List a page of what the payer stored", **page)
    add("GET", _ONE, counter.get, "Get a value", response_class=Response, **one)
    add("PUT", _ONE, counter.put, "Put a value", response_model=PutAnswer, openapi_extra=_TEXT)
    gone: dict[str, Any] = {"response_model": DeletedAnswer, "responses": _MAY_BE_ABSENT}
    add("DELETE", _ONE, counter.delete, "Delete a value", **gone)
    for verb, function, model, body in (
        ("get", counter.get_many, FoundAnswer, _object(_KEYS)),
        ("set", counter.set_many, StoredManyAnswer, _object(_ENTRIES)),
        ("delete", counter.delete_many, DeletedManyAnswer, _object(_KEYS)),
    ):
        many = {"response_model": model, "openapi_extra": body}
        add("POST", f"/batch/{verb}", function, f"{verb.capitalize()} many values", **many)
    return router


class _Counter:
    """The functions of the routes."""

    def __init__(
        self, gate: Gate, storage: Storage | Callable[[], Storage], prices: Prices
    ) -> None:
        self._gate = gate
        self._storage = storage
        self._prices = prices

    @property
    def _limits(self) -> Limits:
        found = self._storage if isinstance(self._storage, Storage) else self._storage()
        return found.limits

    async def _sell(self, request: Request, taking: Awaitable[_Order]) -> Any:
        try:
            order = await taking
            check_path(request)
        except TallystickError as error:
            return private(errors.answer(error))

        async def work(sale: "Sale | None") -> Response:
            if sale is None:
                raise Unauthenticated("nobody paid, so there is no store", code="no_payer")
            return await order.work(sale)

        return await self._gate.sell(
            request, order.price, work, body=order.body, ready=order.ready, visit=order.visit
        )

    # Each of these answers by a response of its own; its fields are `answers.py`'s.

    async def list_page(
        self,
        request: Request,
        prefix: str = "",
        cursor: str | None = None,
        limit: Annotated[int, Query(description="0: as many as a page may have")] = 0,
        keys_only: bool = False,
    ) -> Any:
        """`entries` in the order of their keys, and a `cursor` if there are more."""

        async def take() -> _Order:
            self._limits.check_prefix(prefix)
            self._limits.page_entries(limit)
            body = await read_body(request, 0, "body")
            return _Order(self._prices.list, body, _sold(read), ready, read)

        async def ready(session: Session, _reservation: str) -> None:
            await session.check_list(prefix=prefix, cursor=cursor, limit=limit)

        async def read(session: Session) -> Response:
            page = await session.list(
                prefix=prefix, cursor=cursor, limit=limit, keys_only=keys_only
            )
            return JSONResponse(PageAnswer(entries=page.entries, cursor=page.cursor))

        return await self._sell(request, take())

    async def get(self, request: Request, key: str) -> Any:
        """The value as it was put. Nothing is charged for a key that is not there."""

        async def read(session: Session) -> Response:
            value = await session.get(key)
            if value is None:  # it was over, or deleted, while it was paid for
                raise _absent()
            return PlainTextResponse(value, headers=_PASSIVE)

        taking = self._of_one(request, self._prices.get, key, _sold(read), visit=read)
        return await self._sell(request, taking)

    async def put(self, request: Request, key: str, ttl_ms: int | None = None) -> Any:
        """The body is the value: text in UTF-8."""

        async def take() -> _Order:
            self._limits.check_key(key)
            body = await read_body(request, self._limits.value_bytes_max, "value")
            told = PutAnswer(key=key, stored=1)
            return self._putting(self._prices.put, body, {key: _text(body)}, ttl_ms, told)

        return await self._sell(request, take())

    async def delete(self, request: Request, key: str) -> Any:
        """Nothing is charged for a key that is not there."""

        async def work(sale: "Sale") -> Response:
            deleted = await sale.session.delete(key)
            return JSONResponse(DeletedAnswer(key=key, deleted=deleted))

        return await self._sell(request, self._of_one(request, self._prices.delete, key, work))

    async def get_many(self, request: Request) -> Any:
        """Each key with its value, or null. Costs the price of a get for each."""

        async def take() -> _Order:
            body, keys = await self._read_keys(request)

            async def work(sale: "Sale") -> Response:
                return JSONResponse(FoundAnswer(entries=await sale.session.get_many(keys)))

            return _Order(_times(self._prices.get, len(keys)), body, work)

        return await self._sell(request, take())

    async def set_many(self, request: Request) -> Any:
        """All of them or none. Costs the price of a put for each."""

        async def take() -> _Order:
            body, found = await read_object(request, {"entries", "ttl_ms"})
            entries, ttl_ms = found.get("entries"), found.get("ttl_ms")
            if not isinstance(entries, dict) or not entries:
                raise InvalidInput("entries", "takes an object of at least one")
            price, told = (
                _times(self._prices.put, len(entries)),
                StoredManyAnswer(stored=len(entries)),
            )
            return self._putting(price, body, entries, ttl_ms, told)

        return await self._sell(request, take())

    async def delete_many(self, request: Request) -> Any:
        """How many were there. Costs the price of a delete for each key."""

        async def take() -> _Order:
            body, keys = await self._read_keys(request)

            async def work(sale: "Sale") -> Response:
                deleted = await sale.session.delete_many(keys)
                return JSONResponse(DeletedManyAnswer(deleted=deleted))

            return _Order(_times(self._prices.delete, len(keys)), body, work)

        return await self._sell(request, take())

    async def _of_one(
        self,
        request: Request,
        price: Price,
        key: str,
        work: Callable[["Sale"], Awaitable[Response]],
        visit: Callable[[Session], Awaitable[Response]] | None = None,
    ) -> _Order:
        """Of a key that has to be there."""

        async def ready(session: Session, _reservation: str) -> None:
            if not await session.has(key):
                raise _absent()

        self._limits.check_key(key)
        return _Order(price, await read_body(request, 0, "body"), work, ready, visit)

    def _putting(
        self,
        price: Price,
        body: bytes,
        entries: dict[str, Any],
        ttl_ms: Any,
        told: PutAnswer | StoredManyAnswer,
    ) -> _Order:
        """Of entries, for which room is kept while they are paid for."""
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)

        async def ready(session: Session, reservation: str) -> None:
            await session.reserve(entries, reservation, ttl_ms=ttl_ms)

        async def work(sale: "Sale") -> Response:
            await sale.session.set_many(entries, ttl_ms=ttl_ms, reservation=sale.reservation)
            return JSONResponse(told)

        return _Order(price, body, work, ready)

    async def _read_keys(self, request: Request) -> tuple[bytes, list[str]]:
        body, found = await read_object(request, {"keys"})
        keys = found.get("keys")
        if not isinstance(keys, list) or not keys:
            raise InvalidInput("keys", "takes a list of at least one")
        self._limits.check_keys(keys)
        return body, list(dict.fromkeys(keys))


def _sold(
    read: Callable[[Session], Awaitable[Response]],
) -> Callable[["Sale"], Awaitable[Response]]:
    return lambda sale: read(sale.session)


def _times(price: Price, count: int) -> Price:
    return None if price is None else price * count


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("value", "is not UTF-8") from None


def _absent() -> NotFound:
    return NotFound("nothing of this key is there")
