"""A store in memory, for tests and for what may be forgotten: it ends with the process.

No payer can push out what another stored. Each has a quota (`Limits`); when the whole store is
full, whoever writes loses what they used longest ago themselves, and who has nothing is refused.
For one event loop.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, nsmallest

from engine.clock import Clock, stopwatch, system_clock
from engine.storage.cursor import KEY_BYTES
from engine.storage.grants import MemoryGrants
from engine.storage.limits import Limits, QuotaExceeded, Usage, WriteInProgress, default_ttl
from engine.storage.store import Page

_DUE_SPARE = 64


@dataclass(slots=True)
class _Entry:
    value: str
    bytes: int
    ttl_ms: int
    expires_ms: int | None


@dataclass(slots=True)
class _Shelf:
    """What one payer has, from what was used longest ago to what was used last."""

    entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    bytes: int = 0


@dataclass(slots=True)
class _Room:
    """What is kept free for a write under way."""

    usage: Usage
    expires_ms: int
    alone: str | None


class MemoryStore:
    """At most `max_entries` of all payers; they live `ttl_ms` by default, 0 for ever.

    Raises:
        ValueError: `max_entries` is below 1 or `ttl_ms` below 0.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        ttl_ms: int = 3_600_000,
        limits: Limits | None = None,
        clock: Clock = stopwatch,
    ) -> None:
        if max_entries < 1:
            raise ValueError("max_entries must be >= 1")
        self.max_entries = max_entries
        self.ttl_ms = default_ttl(ttl_ms)
        self.limits = limits or Limits()
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self._entries_count = 0
        # When something may be over, soonest first. What was got or set since comes again later.
        self._due: list[tuple[int, str, str]] = []
        self._reserved: dict[str, dict[str, _Room]] = {}  # by payer and reservation
        self._cursor_key = secrets.token_bytes(KEY_BYTES)
        # Who signs in writes down what time it is, so these go by the time of day.
        self.grants = MemoryGrants(system_clock if clock is stopwatch else clock)

    async def get(self, payer: str, key: str) -> str | None:
        """See `Store`."""
        return self._get(payer, key, self._now())

    async def get_many(self, payer: str, keys: Iterable[str]) -> dict[str, str | None]:
        """See `engine.storage.store`."""
        now = self._now()
        return {key: self._get(payer, key, now) for key in keys}

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
        now = self._now()
        sizes, _ = self._sizes(payer, entries, reservation)
        self._release(payer, reservation)
        ttl_ms = self.ttl_ms if ttl_ms is None else ttl_ms
        expires_ms = now + ttl_ms if ttl_ms else None
        for key, value in entries.items():
            self._remove(payer, key)
            shelf = self._shelves.setdefault(payer, _Shelf())
            shelf.entries[key] = _Entry(value, sizes[key], ttl_ms, expires_ms)
            shelf.bytes += sizes[key]
            self._entries_count += 1
            if expires_ms is not None:
                heappush(self._due, (expires_ms, payer, key))
        free = self.max_entries - self._reserved_beside(payer, now)
        while self._entries_count > free:
            self._remove(payer, next(iter(self._shelves[payer].entries)))
        self._tidy()

    async def check_set(self, payer: str, entries: Mapping[str, str]) -> None:
        """See `engine.storage.store`."""
        self._now()
        self._sizes(payer, entries)

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
        self._now()
        entry = self._entry(payer, key)
        if (None if entry is None else entry.value) != old:
            return False
        if new is None:
            self._remove(payer, key)
            self._release(payer, reservation)
        else:
            await self.set_many(payer, {key: new}, ttl_ms=ttl_ms, reservation=reservation)
        return True

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
        now = self._now()
        rooms = self._reserved.get(payer, {}).items()
        living = {name: room for name, room in rooms if room.expires_ms > now}
        others = [room.alone for name, room in living.items() if name != reservation]
        if alone is not None and alone in others:
            raise WriteInProgress
        _, more = self._sizes(payer, entries, reservation)
        self._reserved[payer] = living | {reservation: _Room(more, now + life_ms, alone)}

    async def release(self, payer: str, reservation: str) -> None:
        """See `engine.storage.store`."""
        self._release(payer, reservation)

    async def delete(self, payer: str, key: str) -> bool:
        """See `Store`."""
        return await self.delete_many(payer, [key]) == 1

    async def delete_many(self, payer: str, keys: Iterable[str]) -> int:
        """See `engine.storage.store`."""
        self._now()
        return sum([self._remove(payer, key) for key in keys])

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
        self._now()
        entries = self._shelves.get(payer, _Shelf()).entries
        matching = (
            key for key in entries if key.startswith(prefix) and (cursor is None or key > cursor)
        )
        limit = limit or len(entries)
        keys = nsmallest(limit + 1, matching)
        page = {key: "" if keys_only else entries[key].value for key in keys[:limit]}
        return Page(page, keys[limit - 1] if len(keys) > limit else None)

    async def cursor_key(self) -> bytes:
        """See `engine.storage.store`."""
        return self._cursor_key

    async def close(self) -> None:
        """Forget everything."""
        self._shelves.clear()
        self._reserved.clear()
        self._due.clear()
        self._entries_count = 0

    def _now(self) -> int:
        """The time; what is over by then is gone."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, payer, key = heappop(self._due)
            entry = self._entry(payer, key)
            if entry is None or entry.expires_ms is None:
                continue
            if entry.expires_ms <= now:
                self._remove(payer, key)
            else:
                heappush(self._due, (entry.expires_ms, payer, key))
        return now

    def _tidy(self) -> None:
        """Keep the list of what is due from growing with what was deleted or set again."""
        if len(self._due) > 2 * self._entries_count + _DUE_SPARE:
            self._due = [
                (entry.expires_ms, payer, key)
                for payer, shelf in self._shelves.items()
                for key, entry in shelf.entries.items()
                if entry.expires_ms is not None
            ]
            heapify(self._due)

    def _entry(self, payer: str, key: str) -> _Entry | None:
        shelf = self._shelves.get(payer)
        return None if shelf is None else shelf.entries.get(key)

    def _get(self, payer: str, key: str, now: int) -> str | None:
        entry = self._entry(payer, key)
        if entry is None:
            return None
        self._shelves[payer].entries.move_to_end(key)
        if entry.ttl_ms:
            entry.expires_ms = now + entry.ttl_ms
        return entry.value

    def _remove(self, payer: str, key: str) -> bool:
        entry = self._entry(payer, key)
        if entry is None:
            return False
        shelf = self._shelves[payer]
        del shelf.entries[key]
        shelf.bytes -= entry.bytes
        self._entries_count -= 1
        if not shelf.entries:
            del self._shelves[payer]
        return True

    def _release(self, payer: str, reservation: str) -> None:
        rooms = self._reserved.get(payer, {})
        rooms.pop(reservation, None)
        if not rooms:
            self._reserved.pop(payer, None)

    def _reserved_beside(self, payer: str, now: int) -> int:
        """How many entries other payers keep room for, who cannot take that from this one."""
        for other in [name for name in self._reserved if name != payer]:
            rooms = self._reserved[other]
            for name in [name for name, room in rooms.items() if room.expires_ms <= now]:
                self._release(other, name)
        others = (rooms.values() for other, rooms in self._reserved.items() if other != payer)
        return sum(room.usage.entries for rooms in others for room in rooms)

    def _sizes(
        self, payer: str, entries: Mapping[str, str], reservation: str = ""
    ) -> tuple[dict[str, int], Usage]:
        """The size of each entry, and what more they take, if there is room for all."""
        sizes = {key: len(key.encode()) + len(value.encode()) for key, value in entries.items()}
        shelf = self._shelves.get(payer, _Shelf())
        replaced = [shelf.entries[key].bytes for key in entries if key in shelf.entries]
        held = Usage(len(shelf.entries), shelf.bytes)
        becomes = Usage(
            held.entries + len(entries) - len(replaced),
            held.bytes + sum(sizes.values()) - sum(replaced),
        )
        now = self._clock()
        rooms = [
            room.usage
            for name, room in self._reserved.get(payer, {}).items()
            if name != reservation and room.expires_ms > now
        ]
        reserved = Usage(sum(room.entries for room in rooms), sum(room.bytes for room in rooms))
        self.limits.check_quota(held, becomes, reserved)
        others = self._entries_count - held.entries + self._reserved_beside(payer, now)
        if others + len(entries) > self.max_entries:
            raise QuotaExceeded("the store is full", quota="store")
        more = (max(0, after - before) for before, after in zip(held, becomes, strict=True))
        return sizes, Usage(*more)
