"""The current payer, and what that payer stored.

    storage = Storage(MemoryStore())
    await storage.run_with_payer(Payer("0x…", "eip155:8453"), handler)

    async def handler() -> None:
        session = get_session()
        if session is not None:
            await session.set("note", "hello")

Who the current payer is goes with the context (`contextvars`): tasks and threads that a handler
starts see the same. Only somebody who verified and settled a payment may enter a payer, and whoever
serves an unpaid request inside a paid one enters `unpaid`.
"""

import inspect
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from engine.errors import InvalidInput
from engine.storage import cursor as cursors
from engine.storage.grants import Grants
from engine.storage.limits import RESERVATION_MS, Changed, Limits, check_ttl
from engine.storage.memory import MemoryStore
from engine.storage.payer import Payer
from engine.storage.store import Page, Store

P = ParamSpec("P")
T = TypeVar("T")

_current: ContextVar["Session | None"] = ContextVar("tallystick_session", default=None)


def get_session() -> "Session | None":
    """What the current payer stored; None when nobody paid."""
    return _current.get()


def get_payer() -> str | None:
    """The address of the current payer as the verifier wrote it; None when nobody paid."""
    session = _current.get()
    return None if session is None else session.payer


@contextmanager
def unpaid() -> Iterator[None]:
    """Inside, there is no payer, whoever pays outside."""
    with _entered(None):
        yield


class Session:
    """What one payer stored. Made by `Storage.session`.

    Every verb raises `InvalidInput` (or `TooLarge`, which is one) naming the field that the store
    would not take, and `Unavailable` if the store cannot be reached.
    """

    def __init__(self, storage: "Storage", payer: Payer) -> None:
        self._storage = storage
        self._store: Any = storage.store
        self._payer = payer
        self._account = payer.account

    @property
    def payer(self) -> str:
        """The address as the verifier wrote it."""
        return self._payer.address

    @property
    def chain(self) -> str:
        """The CAIP-2 id of the chain on which was paid."""
        return self._payer.chain

    async def get(self, key: str) -> str | None:
        """The value, or None. If the entry has a life, it begins anew."""
        self._limits.check_key(key)
        value: str | None = await self._store.get(self._account, key)
        return value

    async def set(self, key: str, value: str, *, ttl_ms: int | None = None) -> None:
        """Store it, in place of what is there.

        `ttl_ms` is its life in milliseconds since it was last set or got; 0 is for ever, and None
        the store's default.

        Raises:
            QuotaExceeded: the payer would hold too much; nothing was written.
        """
        self._limits.check_entries({key: value})
        check_ttl(ttl_ms)
        await self._store.set(self._account, key, value, ttl_ms=ttl_ms)

    async def delete(self, key: str) -> bool:
        """Delete it; whether it was there."""
        self._limits.check_key(key)
        deleted: bool = await self._store.delete(self._account, key)
        return deleted

    async def list(
        self,
        *,
        prefix: str = "",
        cursor: str | None = None,
        limit: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """A page of the entries whose keys begin with `prefix`, in the order of their code points.

        `cursor` comes from the page before, of the same prefix. `limit` 0 is for as many as a page
        may have. With `keys_only` every value is "". Lives go on as they are.
        """
        position = await self.check_list(prefix=prefix, cursor=cursor, limit=limit)
        limit = self._limits.page_entries(limit)
        page: Page = await self._store.list(
            self._account, prefix=prefix, cursor=position, limit=limit, keys_only=keys_only
        )
        if page.cursor is None:
            return page
        key = await self._storage.cursor_key()
        return Page(page.entries, cursors.seal(key, self._account, prefix, page.cursor))

    async def check_list(
        self, *, prefix: str = "", cursor: str | None = None, limit: int = 0
    ) -> str | None:
        """Raise what `list` would raise, and read nothing; the store's position of the cursor."""
        self._limits.check_prefix(prefix)
        self._limits.page_entries(limit)
        if cursor is None:
            return None
        return cursors.unseal(await self._storage.cursor_key(), self._account, prefix, cursor)

    async def has(self, key: str) -> bool:
        """Whether it is there; its life goes on as it is."""
        self._limits.check_key(key)
        page: Page = await self._store.list(self._account, prefix=key, limit=1, keys_only=True)
        return key in page.entries  # which is before all that only begin with it

    async def peek(self, key: str) -> str | None:
        """The value, or None; its life goes on as it is."""
        self._limits.check_key(key)
        page: Page = await self._store.list(self._account, prefix=key, limit=1)
        return page.entries.get(key)

    async def replace(
        self,
        key: str,
        old: str | None,
        new: str | None,
        *,
        ttl_ms: int | None = None,
        reservation: str = "",
    ) -> None:
        """Store `new` in place of `old`, if that is what is there; None is for nothing.

        Uses up the room that was reserved as `reservation`.

        Raises:
            Changed: something else is there, and nothing was written.
            QuotaExceeded: the payer would hold too much.
            InvalidInput: naming `condition`: this store cannot compare.
        """
        self._limits.check_entries({key: "" if new is None else new})
        self._limits.check_old(old)
        check_ttl(ttl_ms)
        replaced: bool = await self._comparing("replace")(
            self._account, key, old, new, ttl_ms=ttl_ms, reservation=reservation
        )
        if not replaced:
            raise Changed("something else is there")

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Every key asked for, with its value or None."""
        asked = list(dict.fromkeys(keys))
        self._limits.check_keys(asked)
        if (get_many := self._optional("get_many")) is not None:
            found: dict[str, str | None] = await get_many(self._account, asked)
            return found
        return {key: await self._store.get(self._account, key) for key in asked}

    async def set_many(
        self,
        entries: Mapping[str, str],
        *,
        ttl_ms: int | None = None,
        reservation: str | None = None,
    ) -> None:
        """Store all of them or none (one after the other in a store without `set_many`).

        Uses up the room that was reserved as `reservation`.

        Raises:
            QuotaExceeded: the payer would hold too much.
        """
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)
        if reservation is not None and self._optional("reserve") is not None:
            await self._store.set_many(
                self._account, entries, ttl_ms=ttl_ms, reservation=reservation
            )
            return
        if (set_many := self._optional("set_many")) is not None:
            await set_many(self._account, entries, ttl_ms=ttl_ms)
            return
        for key, value in entries.items():
            await self._store.set(self._account, key, value, ttl_ms=ttl_ms)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """Delete them; how many were there."""
        asked = list(dict.fromkeys(keys))
        self._limits.check_keys(asked)
        if (delete_many := self._optional("delete_many")) is not None:
            count: int = await delete_many(self._account, asked)
            return count
        return sum([await self._store.delete(self._account, key) for key in asked])

    async def check_set(self, entries: Mapping[str, str], *, ttl_ms: int | None = None) -> None:
        """Raise what `set_many` would raise now, and write nothing: asked before a payment."""
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)
        if (check_set := self._optional("check_set")) is not None:
            await check_set(self._account, entries)

    async def reserve(
        self,
        entries: Mapping[str, str],
        reservation: str,
        *,
        ttl_ms: int | None = None,
        alone: str | None = None,
    ) -> None:
        """As `check_set`, and keep the room for a write with the same `reservation`.

        It is kept for ten minutes (`RESERVATION_MS`), unless the store cannot keep any. Reserved
        again it is what was reserved last. `alone` is a key that is to be replaced, and that nobody
        else may reserve so meanwhile.

        Raises:
            WriteInProgress: somebody else has.
        """
        if alone is not None:
            self._limits.check_key(alone)
            self._limits.check_entries(entries)
            check_ttl(ttl_ms)
            reserving = self._comparing("reserve")
            await reserving(self._account, entries, reservation, RESERVATION_MS, alone=alone)
            return
        if (reserve := self._optional("reserve")) is None:
            await self.check_set(entries, ttl_ms=ttl_ms)
            return
        self._limits.check_entries(entries)
        check_ttl(ttl_ms)
        await reserve(self._account, entries, reservation, RESERVATION_MS)

    async def release(self, reservation: str) -> None:
        """Keep the room no longer."""
        if (release := self._optional("release")) is not None:
            await release(self._account, reservation)

    @property
    def _limits(self) -> Limits:
        return self._storage.limits

    def _optional(self, verb: str) -> Any:
        return getattr(self._store, verb, None)

    def _comparing(self, verb: str) -> Any:
        """A verb of a store that can `replace`."""
        if self._optional("replace") is None or self._optional("reserve") is None:
            raise InvalidInput("condition", "this store cannot compare")
        return self._optional(verb)


class Storage:
    """A store, and the only way for a payer into it. Without one, what is stored is in memory."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = MemoryStore() if store is None else store
        self.limits: Limits = getattr(self.store, "limits", Limits())
        self.grants: Grants | None = getattr(self.store, "grants", None)
        self._cursor_key: bytes | None = None

    def session(self, payer: Payer) -> Session:
        """What this payer stored."""
        return Session(self, payer)

    @contextmanager
    def paid_by(self, payer: Payer) -> Iterator[Session]:
        """Inside, this is the current payer."""
        session = self.session(payer)
        with _entered(session):
            yield session

    def run_with_payer(
        self, payer: Payer, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `fn` with this as the current payer, and return what it returns.

        The payer before is the current one again afterwards, also if `fn` raises. If `fn` is a
        coroutine function, what it returns runs with this payer whenever it is awaited.
        """
        with self.paid_by(payer) as session:
            result = fn(*args, **kwargs)
        if inspect.iscoroutine(result):
            return _continued(session, result)  # type: ignore[return-value]  # a coroutine is T
        return result

    async def cursor_key(self) -> bytes:
        """The store's own, or one of this process for a store that has none."""
        if self._cursor_key is None:
            ask = getattr(self.store, "cursor_key", None)
            key = secrets.token_bytes(cursors.KEY_BYTES) if ask is None else await ask()
            if self._cursor_key is None:  # nobody else was faster
                self._cursor_key = key
        return self._cursor_key

    async def close(self) -> None:
        """Close the store."""
        close = getattr(self.store, "close", None)
        if close is not None:
            await close()


@contextmanager
def _entered(session: Session | None) -> Iterator[None]:
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


async def _continued(session: Session, coroutine: Coroutine[Any, Any, T]) -> T:
    with _entered(session):
        return await coroutine
