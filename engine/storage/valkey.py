"""A store in Valkey or Redis, one server or a cluster. Each verb is one script (`valkey.lua`).

All keys of a payer have one hash tag, so a cluster keeps them together, and payers spread over it.
What is acknowledged is as durable as the server is configured to be: `appendfsync always` loses
nothing, `everysec` a second. A payer whose entries all have a life leaves nothing behind.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import valkey.asyncio
import valkey.exceptions
from valkey.asyncio.cluster import ValkeyCluster

from engine.clock import Clock
from engine.errors import Unavailable
from engine.storage.cursor import KEY_BYTES
from engine.storage.limits import Limits, Usage, WriteInProgress, default_ttl
from engine.storage.store import Page

TIMEOUT_S = 5.0
CONNECTIONS = 64
"""So many connections are open at most; who asks then waits for one."""
_PARTS = ("values", "index", "expiries", "lives", "bytes", "reserved")


class ValkeyStore:
    """A store on the server at `url`: `valkey://`, `redis://`, `valkeys://`, `rediss://` or `unix://`.

    With `cluster`, `url` is one node of a cluster. `namespace` begins all names, so that others can
    use the same server. Entries live `ttl_ms` by default; 0 is for ever. `clock` tells the time
    instead of the server. For one event loop.

    Raises:
        ValueError: `ttl_ms` is below 0, or it is no such URL.
    """

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        namespace: str = "tallystick",
        ttl_ms: int = 0,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.ttl_ms = default_ttl(ttl_ms)
        self.limits = limits or Limits()
        self._clock = clock
        self._namespace = namespace
        kind: Any = ValkeyCluster if cluster else valkey.asyncio.Valkey
        self._client = kind.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._turns = asyncio.Semaphore(CONNECTIONS)
        script = resources.files("engine.storage").joinpath("valkey.lua").read_text("utf-8")
        self._script = self._client.register_script(script)
        self.grants = ValkeyGrants(self._client, self._turns, namespace, clock)

    async def get(self, payer: str, key: str) -> str | None:
        """See `Store`."""
        return (await self.get_many(payer, [key]))[key]

    async def get_many(self, payer: str, keys: Iterable[str]) -> dict[str, str | None]:
        """See `engine.storage.store`."""
        asked = dict.fromkeys(keys)
        values = await self._run("get", payer, *asked)
        return {
            key: None if value is None else value.decode()
            for key, value in zip(asked, values, strict=True)
        }

    async def set(self, payer: str, key: str, value: str, *, ttl_ms: int | None = None) -> None:
        """See `Store`."""
        await self.set_many(payer, {key: value}, ttl_ms=ttl_ms)

    async def set_many(
        self,
        payer: str,
        entries: Mapping[str, str],
        *,
        ttl_ms: int | None = None,
        reservation: str = "",
    ) -> None:
        """See `engine.storage.store`."""
        life_ms = self.ttl_ms if ttl_ms is None else ttl_ms
        await self._set("store", payer, entries, life_ms, reservation)

    async def replace(
        self,
        payer: str,
        key: str,
        old: str | None,
        new: str | None,
        *,
        ttl_ms: int | None = None,
        reservation: str = "",
    ) -> bool:
        """See `engine.storage.store`."""
        condition = (key, "absent" if old is None else "present", old or "")
        if new is None:
            found = await self._run("replace", payer, *condition, "delete", key)
            await self.release(payer, reservation)
            return bool(found != [b"changed"])
        life_ms = self.ttl_ms if ttl_ms is None else ttl_ms
        asked = self._setting("store", {key: new}, life_ms, reservation)
        return self._was_set(await self._run("replace", payer, *condition, "set", *asked))

    async def check_set(self, payer: str, entries: Mapping[str, str]) -> None:
        """See `engine.storage.store`."""
        await self._set("check", payer, entries, 0, "")

    async def reserve(
        self,
        payer: str,
        entries: Mapping[str, str],
        reservation: str,
        life_ms: int,
        *,
        alone: str | None = None,
    ) -> None:
        """See `engine.storage.store`."""
        await self._set("reserve", payer, entries, life_ms, reservation, alone or "")

    async def release(self, payer: str, reservation: str) -> None:
        """See `engine.storage.store`."""
        await self._run("release", payer, reservation)

    async def delete(self, payer: str, key: str) -> bool:
        """See `Store`."""
        return await self.delete_many(payer, [key]) == 1

    async def delete_many(self, payer: str, keys: Iterable[str]) -> int:
        """See `engine.storage.store`."""
        count: int = await self._run("delete", payer, *keys)
        return count

    async def list(
        self,
        payer: str,
        *,
        prefix: str = "",
        cursor: str | None = None,
        limit: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """See `Store`."""
        limit = limit or self.limits.payer_entries_max
        first, after = prefix.encode(), (cursor or "").encode()
        start = b"(" + after if after >= first and cursor is not None else b"[" + first
        end = b"(" + first + b"\xff"  # no text has this byte
        what = "keys" if keys_only else "entries"
        found = await self._run("list", payer, start, end, limit + 1, what)
        rows = list(zip(found[::2], found[1::2], strict=True))
        page = {key.decode(): value.decode() for key, value in rows[:limit]}
        return Page(page, rows[limit - 1][0].decode() if len(rows) > limit else None)

    async def cursor_key(self) -> bytes:
        """See `engine.storage.store`."""
        name = f"{self._namespace}:cursor-key"
        try:
            async with self._turns:
                await self._client.set(name, secrets.token_bytes(KEY_BYTES), nx=True)
                key: bytes = await self._client.get(name)
        except (valkey.exceptions.ValkeyError, OSError) as error:
            raise Unavailable("the store cannot be reached now") from error
        return key

    async def close(self) -> None:
        """See `engine.storage.store`."""
        await self._client.aclose()

    async def _set(
        self,
        how: str,
        payer: str,
        entries: Mapping[str, str],
        life_ms: int,
        reservation: str,
        alone: str = "",
    ) -> None:
        asked = self._setting(how, entries, life_ms, reservation, alone)
        self._was_set(await self._run("set", payer, *asked))

    def _setting(
        self,
        how: str,
        entries: Mapping[str, str],
        life_ms: int,
        reservation: str,
        alone: str = "",
    ) -> tuple[Any, ...]:
        """What the verb `set` takes."""
        pairs = [text for entry in entries.items() for text in entry]
        return (*self.limits.quotas, how, life_ms, reservation, alone, *pairs)

    def _was_set(self, told: Sequence[Any]) -> bool:
        """False if something else was there than was to be replaced."""
        if told == [b"changed"]:
            return False
        if told == [b"alone"]:
            raise WriteInProgress
        if told:
            held, becomes, reserved = (Usage(*told[at : at + 2]) for at in (0, 2, 4))
            self.limits.check_quota(held, becomes, reserved)
            raise AssertionError("the script and the limits disagree")
        return True

    async def _run(self, verb: str, payer: str, *arguments: Any) -> Any:
        assert "{" not in payer
        assert "}" not in payer
        names = [f"{self._namespace}:{{{payer}}}:{part}" for part in _PARTS]
        now = "" if self._clock is None else self._clock()
        try:
            async with self._turns:
                return await self._script(names, [verb, now, *arguments])
        except (valkey.exceptions.ValkeyError, OSError) as error:
            raise Unavailable("the store cannot be reached now") from error


class ValkeyGrants:
    """See `Grants`. They are never dropped, so the server must keep what it acknowledged."""

    shared = True

    def __init__(
        self, client: Any, turns: asyncio.Semaphore, namespace: str, clock: Clock | None
    ) -> None:
        self.opening = secrets.token_hex(8)
        self._turns = turns
        self._namespace = namespace
        self._clock = clock
        script = resources.files("engine.storage").joinpath("valkey_grants.lua").read_text("utf-8")
        self._script = client.register_script(script)

    async def read(self, payment: str) -> tuple[bytes | None, int]:
        """See `Grants`."""
        body, now = await self._run(payment, "read")
        return body, int(now) if self._clock is None else self._clock()

    async def replace(self, payment: str, old: bytes | None, new: bytes | None) -> bool:
        """See `Grants`."""
        return bool(await self._run(payment, "replace", old or b"", new or b""))

    async def _run(self, payment: str, *arguments: Any) -> Any:
        try:
            async with self._turns:
                return await self._script([f"{self._namespace}:grant:{payment}"], arguments)
        except (valkey.exceptions.ValkeyError, OSError) as error:
            raise Unavailable("the store cannot be reached now") from error
