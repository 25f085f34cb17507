"""What payers store, over HTTP: every verb costs what `Prices` say.

    app.include_router(store_routes(gate, storage))

A value is the body, as it is. Whatever would be refused is refused before anything is settled: what
is unacceptable of anybody at once, what depends on the payer (quota, cursor, a key that is not
there) when a valid payment tells who that is.
"""

from collections.abc import Awaitable, Callable, Mapping
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
from api.gate.conditions import Condition, etag, read_condition, refuse_condition
from api.gate.documented import (
    ANSWERS,
    CONDITIONAL,
    ENTRIES,
    KEYS,
    MAY_BE_ABSENT,
    TEXT,
    VALUE,
    an_object,
    documented,
)
from api.gate.gate import Gate, private
from api.gate.requests import KEY, check_path, read_body, read_object
from api.rest import errors
from engine.errors import InvalidInput, NotFound, TallystickError, Unauthenticated
from engine.selling.currency import Price
from engine.storage.limits import Changed, Limits, check_ttl
from engine.storage.session import Session, Storage

if TYPE_CHECKING:
    from engine.selling.sale import Sale

PREFIX = "/v1/store"
_ONE = f"/{{key:{KEY}}}"
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_PASSIVE = {
    # Whatever somebody stored, a browser shall not run it as a page of this server.
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    **_NOSNIFF,
}


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
    router = APIRouter(prefix=PREFIX, tags=["store"], responses=ANSWERS)
    counter = _Counter(gate, storage, prices)

    def add(method: str, path: str, function: Any, summary: str, **told: Any) -> None:
        router.add_api_route(path, function, methods=[method], summary=summary, **told)

    page, one = {"response_model": PageAnswer}, {"responses": VALUE | MAY_BE_ABSENT}
    add("GET", "", counter.list_page, "List a page of what the payer stored", **page)
    add("GET", _ONE, counter.get, "Get a value", response_class=Response, **one)
    put: dict[str, Any] = {"response_model": PutAnswer, "responses": documented(412)}
    add("PUT", _ONE, counter.put, "Put a value", openapi_extra=TEXT | CONDITIONAL, **put)
    gone: dict[str, Any] = {"response_model": DeletedAnswer, "openapi_extra": CONDITIONAL}
    gone["responses"] = documented(404, 412)
    add("DELETE", _ONE, counter.delete, "Delete a value", **gone)
    for verb, function, model, body in (
        ("get", counter.get_many, FoundAnswer, an_object(KEYS)),
        ("set", counter.set_many, StoredManyAnswer, an_object(ENTRIES)),
        ("delete", counter.delete_many, DeletedManyAnswer, an_object(KEYS)),
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
            return _told(PageAnswer(entries=page.entries, cursor=page.cursor))

        return await self._sell(request, take())

    async def get(self, request: Request, key: str) -> Any:
        """The value as it was put. Nothing is charged for a key that is not there."""

        seen: str | None = None

        async def ready(session: Session, _reservation: str) -> None:
            nonlocal seen
            seen = await session.peek(key)
            if seen is None:
                raise _absent()

        async def read(session: Session) -> Response:
            # What was over, or deleted, while it was paid for is told as it was seen before.
            value = await session.get(key)
            value = seen if value is None else value
            if value is None:
                raise _absent()
            return PlainTextResponse(value, headers={**_PASSIVE, "ETag": etag(value)})

        async def take() -> _Order:
            self._limits.check_key(key)
            body = await read_body(request, 0, "body")
            return _Order(self._prices.get, body, _sold(read), ready, read)

        return await self._sell(request, take())

    async def put(self, request: Request, key: str, ttl_ms: int | None = None) -> Any:
        """The body is the value: text in UTF-8."""

        async def take() -> _Order:
            self._limits.check_key(key)
            condition = read_condition(request.headers)
            body = await read_body(request, self._limits.value_bytes_max, "value")
            value, told = _text(body), PutAnswer(key=key, stored=1)
            headers = {"ETag": etag(value)}
            if condition is not None:
                answer = _told(told, headers)
                return self._replacing(
                    self._prices.put, body, key, value, condition, answer, ttl_ms
                )
            return self._putting(self._prices.put, body, {key: value}, ttl_ms, told, headers)

        return await self._sell(request, take())

    async def delete(self, request: Request, key: str) -> Any:
        """Nothing is charged for a key that is not there."""

        async def work(sale: "Sale") -> Response:
            deleted = await sale.session.delete(key)
            return _told(DeletedAnswer(key=key, deleted=deleted))

        async def ready(session: Session, _reservation: str) -> None:
            if not await session.has(key):
                raise _absent()

        async def take() -> _Order:
            condition = read_condition(request.headers)
            self._limits.check_key(key)
            body = await read_body(request, 0, "body")
            if condition is None:
                return _Order(self._prices.delete, body, work, ready)
            answer = _told(DeletedAnswer(key=key, deleted=True))
            return self._replacing(self._prices.delete, body, key, None, condition, answer)

        return await self._sell(request, take())

    async def get_many(self, request: Request) -> Any:
        """Each key with its value, or null. Costs the price of a get for each."""

        async def take() -> _Order:
            body, keys = await self._read_keys(request)

            async def work(sale: "Sale") -> Response:
                return _told(FoundAnswer(entries=await sale.session.get_many(keys)))

            return _Order(_times(self._prices.get, len(keys)), body, work)

        return await self._sell(request, take())

    async def set_many(self, request: Request) -> Any:
        """All of them or none. Costs the price of a put for each."""

        async def take() -> _Order:
            refuse_condition(request.headers)
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
                return _told(DeletedManyAnswer(deleted=deleted))

            return _Order(_times(self._prices.delete, len(keys)), body, work)

        return await self._sell(request, take())

    def _putting(
        self,
        price: Price,
        body: bytes,
        entries: dict[str, Any],
        ttl_ms: Any,
        told: PutAnswer | StoredManyAnswer,
        headers: dict[str, str] | None = None,
    ) -> _Order:
        """Of entries, for which room is kept while they are paid for."""
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)

        async def ready(session: Session, reservation: str) -> None:
            await session.reserve(entries, reservation, ttl_ms=ttl_ms)

        async def work(sale: "Sale") -> Response:
            await sale.session.set_many(entries, ttl_ms=ttl_ms, reservation=sale.reservation)
            return _told(told, headers)

        return _Order(price, body, work, ready)

    def _replacing(
        self,
        price: Price,
        body: bytes,
        key: str,
        value: str | None,
        condition: Condition,
        answer: Response,
        ttl_ms: int | None = None,
    ) -> _Order:
        """Of one entry on a condition; a value of None deletes it.

        Who pays for that has the key alone among those who do, so no other of them comes between.
        A write without a condition can. The payment is then still good: for the same on another
        condition, or on none.
        """
        entries = {} if value is None else {key: value}
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)

        async def ready(session: Session, reservation: str) -> None:
            await session.reserve(entries, reservation, ttl_ms=ttl_ms, alone=key)
            try:
                condition.check(there := await session.peek(key))
                if there is None and value is None:
                    raise _absent()
            except TallystickError:
                await session.release(reservation)
                raise

        async def work(sale: "Sale") -> Response:
            session, reservation = sale.session, sale.reservation
            there = await session.peek(key)
            try:
                if there != value:  # else it was done before a crash
                    condition.check(there)
                if there is not None or value is not None:
                    await session.replace(key, there, value, ttl_ms=ttl_ms, reservation=reservation)
            except Changed:
                await session.release(reservation)
                raise
            return answer

        return _Order(price, body, work, ready)

    async def _read_keys(self, request: Request) -> tuple[bytes, list[str]]:
        refuse_condition(request.headers)
        body, found = await read_object(request, {"keys"})
        keys = found.get("keys")
        if not isinstance(keys, list) or not keys:
            raise InvalidInput("keys", "takes a list of at least one")
        self._limits.check_keys(keys)
        return body, list(dict.fromkeys(keys))


def _told(answer: Any, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(answer, headers={**_NOSNIFF, **(headers or {})})


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
