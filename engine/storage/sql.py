"""A store in a SQL database: SQLite or PostgreSQL. What was acknowledged is on the disk.

Keys and values are bytes of UTF-8: no collation orders them, no column refuses U+0000, and `%` or
`_` means nothing. Whoever changes what a payer has holds the payer's row, which counts it, until
the transaction ends; so nobody comes past a quota, and one payer never waits for another.
What is over is not seen any more; it leaves the disk when its payer needs the room, or by `sweep`.
"""

from collections.abc import Iterable, Mapping, Sequence

from engine.clock import Clock, system_clock
from engine.storage.grants import SqlGrants
from engine.storage.limits import Limits, QuotaExceeded, Usage, WriteInProgress, default_ttl
from engine.storage.sql_database import Connection, Rows, SqlDatabase, Statements
from engine.storage.store import Page

_HOLD = """
    INSERT INTO payers (payer, entries, bytes) VALUES (:payer, 0, 0)
    ON CONFLICT (payer) DO UPDATE SET entries = payers.entries RETURNING entries, bytes
"""
_HELD = "SELECT entries, bytes FROM payers WHERE payer = :payer"
_COUNT = "UPDATE payers SET entries = :entries, bytes = :bytes WHERE payer = :payer"
_LEAVE = "DELETE FROM payers WHERE payer = :payer"
_GET = """
    SELECT key, value, ttl_ms FROM entries
    WHERE payer = :payer AND key IN :keys AND (expires_ms IS NULL OR expires_ms > :now)
"""
_RENEW = """
    UPDATE entries SET expires_ms = :now + ttl_ms
    WHERE payer = :payer AND key IN :keys AND expires_ms > :now RETURNING key, value
"""
_SIZES = """
    SELECT length(key) + length(value) FROM entries WHERE payer = :payer AND key IN :keys
"""
_OVER = """
    SELECT length(key) + length(value) FROM entries
    WHERE payer = :payer AND key NOT IN :keys AND expires_ms <= :now
"""
_PURGE = """
    DELETE FROM entries WHERE payer = :payer AND key NOT IN :keys AND expires_ms <= :now
    RETURNING length(key) + length(value)
"""
_PUT = """
    INSERT INTO entries (payer, key, value, ttl_ms, expires_ms)
    VALUES (:payer, :key, :value, :ttl_ms, CASE WHEN :ttl_ms > 0 THEN :now + :ttl_ms END)
    ON CONFLICT (payer, key) DO UPDATE
    SET value = excluded.value, ttl_ms = excluded.ttl_ms, expires_ms = excluded.expires_ms
"""
# SQLite 3.40 takes every column in RETURNING for one that is never null: no IS NULL there.
_DELETE = """
    DELETE FROM entries WHERE payer = :payer AND key IN :keys
    RETURNING length(key) + length(value), coalesce(expires_ms, 9223372036854775807) > :now
"""
_PAGE = """
    SELECT key, value FROM entries
    WHERE payer = :payer AND key >= :first AND key > :after AND key < :end
    AND (expires_ms IS NULL OR expires_ms > :now)
    ORDER BY key LIMIT :count
"""
_KEYS = _PAGE.replace("key, value", "key, NULL", 1)
_DUE = "SELECT DISTINCT payer FROM entries WHERE expires_ms <= :now LIMIT :count"

_RESERVED = """
    SELECT CAST(coalesce(sum(entries), 0) AS BIGINT), CAST(coalesce(sum(bytes), 0) AS BIGINT)
    FROM reservations WHERE payer = :payer AND id <> :reservation AND expires_ms > :now
"""
_RESERVE = """
    INSERT INTO reservations (payer, id, entries, bytes, expires_ms, alone)
    VALUES (:payer, :reservation, :entries, :bytes, :now + :life_ms, :alone)
    ON CONFLICT (payer, id) DO UPDATE
    SET entries = excluded.entries, bytes = excluded.bytes, expires_ms = excluded.expires_ms,
    alone = excluded.alone
"""
_ALONE = """
    SELECT id FROM reservations
    WHERE payer = :payer AND id <> :reservation AND expires_ms > :now AND alone = :alone
"""
_RELEASE = """
    DELETE FROM reservations WHERE payer = :payer AND (id = :reservation OR expires_ms <= :now)
"""

_NO_KEYS = [b""]
_AFTER_ALL_TEXT = b"\xff"


class SqlStore:
    """A store in `database`. Entries live `ttl_ms` by default; 0 is for ever.

    `clock` tells the time instead of the database. Raises ValueError for a `ttl_ms` below 0.
    """

    def __init__(
        self,
        database: SqlDatabase,
        *,
        ttl_ms: int = 0,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.ttl_ms = default_ttl(ttl_ms)
        self.limits = limits or Limits()
        self._database = database
        clock_sql = database.clock_sql if clock is None else None
        self._run = Statements(database.parameter, clock_sql, clock or system_clock)
        self.grants = SqlGrants(database, self._run)

    async def get(self, payer: str, key: str) -> str | None:
        """See `Store`."""
        return (await self.get_many(payer, [key]))[key]

    async def get_many(self, payer: str, keys: Iterable[str]) -> dict[str, str | None]:
        """See `engine.storage.store`."""
        found: dict[str, str | None] = dict.fromkeys(keys)
        asked = {"payer": payer, "keys": [key.encode() for key in found] or _NO_KEYS}
        rows = await self._database.read(lambda c: self._run(c, _GET, asked))
        found.update((key.decode(), value.decode()) for key, value, ttl_ms in rows if not ttl_ms)
        if mortal := [key for key, _, ttl_ms in rows if ttl_ms]:
            # What is over before it can be renewed was not got.
            renewed = await self._database.write(lambda c: self._renew(c, payer, mortal))
            found.update((key.decode(), value.decode()) for key, value in renewed)
        return found

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
        rows = _encoded(entries)
        ttl_ms = self.ttl_ms if ttl_ms is None else ttl_ms
        await self._database.write(lambda c: self._put(c, payer, rows, ttl_ms, reservation))

    async def check_set(self, payer: str, entries: Mapping[str, str]) -> None:
        """See `engine.storage.store`."""
        rows = _encoded(entries)

        def check(connection: Connection) -> None:
            [held] = self._run(connection, _HELD, {"payer": payer}) or [(0, 0)]
            self._becomes(connection, payer, Usage(*held), rows, _OVER, "")

        await self._database.read(check)

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
        ttl_ms = self.ttl_ms if ttl_ms is None else ttl_ms
        name = key.encode()
        wanted = None if old is None else old.encode()

        def change(connection: Connection) -> bool:
            held = self._hold(connection, payer)
            found = self._run(connection, _GET, {"payer": payer, "keys": [name]})
            if (bytes(found[0][1]) if found else None) != wanted:
                self._count(connection, payer, held)
                return False
            if new is None:
                self._delete(connection, payer, [name])
                self._run(connection, _RELEASE, {"payer": payer, "reservation": reservation})
            else:
                self._put(connection, payer, {name: new.encode()}, ttl_ms, reservation)
            return True

        return await self._database.write(change)

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
        rows = _encoded(entries)
        asked = {"payer": payer, "reservation": reservation, "life_ms": life_ms}
        asked["alone"] = None if alone is None else alone.encode()

        def keep(connection: Connection) -> None:
            held = self._hold(connection, payer)
            if alone is not None and self._run(connection, _ALONE, asked):
                raise WriteInProgress
            held, becomes = self._becomes(connection, payer, held, rows, _PURGE, reservation)
            more = {
                "entries": max(0, becomes.entries - held.entries),
                "bytes": max(0, becomes.bytes - held.bytes),
            }
            self._run(connection, _RELEASE, asked)
            self._run(connection, _RESERVE, asked | more)
            self._count(connection, payer, held)

        await self._database.write(keep)

    async def release(self, payer: str, reservation: str) -> None:
        """See `engine.storage.store`."""
        asked = {"payer": payer, "reservation": reservation}
        await self._database.write(lambda c: self._run(c, _RELEASE, asked))

    async def delete(self, payer: str, key: str) -> bool:
        """See `Store`."""
        return await self.delete_many(payer, [key]) == 1

    async def delete_many(self, payer: str, keys: Iterable[str]) -> int:
        """See `engine.storage.store`."""
        encoded = [key.encode() for key in keys]
        return await self._database.write(lambda c: self._delete(c, payer, encoded))

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
        first = prefix.encode()
        limit = limit or self.limits.payer_entries_max
        asked = {
            "payer": payer,
            "first": first,
            "after": (cursor or "").encode(),
            "end": first + _AFTER_ALL_TEXT,
            "count": limit + 1,
        }
        statement = _KEYS if keys_only else _PAGE
        rows = await self._database.read(lambda c: self._run(c, statement, asked))
        page = {row[0].decode(): (row[1] or b"").decode() for row in rows[:limit]}
        return Page(page, rows[limit - 1][0].decode() if len(rows) > limit else None)

    async def sweep(self, *, payers_max: int = 100) -> int:
        """Take from the disk what is over, of so many payers; how many entries that were."""
        asked = {"count": payers_max}
        due = await self._database.read(lambda c: self._run(c, _DUE, asked))
        return sum([await self._sweep(payer) for (payer,) in due])

    async def cursor_key(self) -> bytes:
        """See `engine.storage.store`."""
        return self._database.cursor_key

    async def close(self) -> None:
        """See `engine.storage.store`."""
        await self._database.close()

    def _hold(self, connection: Connection, payer: str) -> Usage:
        """Hold what the payer has until the transaction ends; how much that is."""
        [held] = self._run(connection, _HOLD, {"payer": payer})
        return Usage(*held)

    def _count(self, connection: Connection, payer: str, usage: Usage) -> None:
        statement = _COUNT if usage.entries else _LEAVE
        self._run(connection, statement, {"payer": payer, **usage._asdict()})

    def _renew(self, connection: Connection, payer: str, keys: Sequence[bytes]) -> Rows:
        # Held too, or two that renew the same entries could wait for each other.
        held = self._hold(connection, payer)
        rows = self._run(connection, _RENEW, {"payer": payer, "keys": keys})
        if not rows:
            self._count(connection, payer, held)
        return rows

    def _put(
        self,
        connection: Connection,
        payer: str,
        rows: Mapping[bytes, bytes],
        ttl_ms: int,
        reservation: str,
    ) -> None:
        if not rows:
            return
        held = self._hold(connection, payer)
        _, becomes = self._becomes(connection, payer, held, rows, _PURGE, reservation)
        if reservation:
            self._run(connection, _RELEASE, {"payer": payer, "reservation": reservation})
        for key, value in rows.items():
            row = {"payer": payer, "key": key, "value": value, "ttl_ms": ttl_ms}
            self._run(connection, _PUT, row)
        self._count(connection, payer, becomes)

    def _becomes(
        self,
        connection: Connection,
        payer: str,
        held: Usage,
        rows: Mapping[bytes, bytes],
        over: str,
        reservation: str,
    ) -> tuple[Usage, Usage]:
        """What a payer holds before and after these rows.

        `over` finds what need not be counted any more. What others than `reservation` reserved
        is not there to be used.

        Raises:
            QuotaExceeded: that is too much.
        """
        others = {"payer": payer, "reservation": reservation}
        [reserved] = self._run(connection, _RESERVED, others)
        asked = {"payer": payer, "keys": list(rows) or _NO_KEYS}
        becomes = _less(held, self._run(connection, _SIZES, asked))
        added = sum(len(key) + len(value) for key, value in rows.items())
        becomes = Usage(becomes.entries + len(rows), becomes.bytes + added)
        try:
            self.limits.check_quota(held, becomes, Usage(*reserved))
        except QuotaExceeded:
            sizes = self._run(connection, over, asked)
            held, becomes = _less(held, sizes), _less(becomes, sizes)
            self.limits.check_quota(held, becomes, Usage(*reserved))
        return held, becomes

    def _delete(self, connection: Connection, payer: str, keys: Sequence[bytes]) -> int:
        held = self._hold(connection, payer)
        asked = {"payer": payer, "keys": keys or _NO_KEYS}
        rows = self._run(connection, _DELETE, asked)
        self._count(connection, payer, _less(held, rows))
        return sum(bool(lived) for _, lived in rows)

    async def _sweep(self, payer: str) -> int:
        def purge(connection: Connection) -> int:
            held = self._hold(connection, payer)
            asked = {"payer": payer, "keys": _NO_KEYS}
            sizes = self._run(connection, _PURGE, asked)
            self._count(connection, payer, _less(held, sizes))
            return len(sizes)

        return await self._database.write(purge)


def _encoded(entries: Mapping[str, str]) -> dict[bytes, bytes]:
    return {key.encode(): value.encode() for key, value in entries.items()}


def _less(usage: Usage, rows: Rows) -> Usage:
    """Without what these rows begin with, the sizes of entries."""
    return Usage(usage.entries - len(rows), usage.bytes - sum(row[0] for row in rows))
