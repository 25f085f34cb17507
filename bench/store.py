"""What payers store: our stores, and what one would use instead."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import valkey.asyncio
from eth_account import Account
from eth_account.messages import encode_defunct

from bench.contender import CONNECTIONS, Contender, Rate
from bench.valkey_lua import SETTINGS as VALKEY_SETTINGS
from engine.selling.sign_in import EXTENSION, message
from engine.selling.visits import SIGN_INS_MAX, Visits
from engine.storage.memory import MemoryStore
from engine.storage.payer import Payer
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sqlite import SqliteFile
from engine.storage.valkey import ValkeyStore
from tests.servers import ValkeyServer

CHAIN = "eip155:8453"
KEYS = 16
VALUE = "v" * 256
SIGNED = 10
"""So many messages are signed at once for each payer, while the clock stands still."""


class StoreContender(Contender):
    """Half gets and half puts of short texts, spread over many payers, by so many callers."""

    unit = "operations/s"
    callers: ClassVar[int] = CONNECTIONS

    def prepare(self) -> Mapping[str, str]:
        self.loop = asyncio.new_event_loop()
        about = self.loop.run_until_complete(self.open())
        self.loop.run_until_complete(self._fill())
        return {"payers": str(self.workload.sessions), **about}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        return self.loop.run_until_complete(self._run(seconds))

    def close(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.end())
            self.loop.close()

    @abstractmethod
    async def open(self) -> Mapping[str, str]:
        """Open it; returns what matters."""

    @abstractmethod
    async def get(self, payer: int, key: str) -> str | None:
        """One value of one payer."""

    @abstractmethod
    async def put(self, payer: int, key: str, value: str) -> None:
        """It is kept as what `says` tells."""

    @abstractmethod
    async def end(self) -> None:
        """Close what was opened, also if that was not all."""

    async def _fill(self) -> None:
        for payer in range(self.workload.sessions):
            await asyncio.gather(*(self.put(payer, f"key-{key}", VALUE) for key in range(KEYS)))

    async def _run(self, seconds: float) -> Rate:
        started = time.perf_counter()
        latencies_ms: list[float] = []

        async def call(caller: int) -> None:
            draw = self.workload.draw(f"{self.runs}/{caller}")
            while (asked := time.perf_counter()) - started < seconds:
                payer, key = draw.randrange(self.workload.sessions), f"key-{draw.randrange(KEYS)}"
                if draw.random() < 0.5:
                    assert await self.get(payer, key) == VALUE
                else:
                    await self.put(payer, key, VALUE)
                latencies_ms.append((time.perf_counter() - asked) * 1000)

        await asyncio.gather(*(call(caller) for caller in range(self.callers)))
        return Rate(len(latencies_ms), time.perf_counter() - started, latencies_ms)


class _Ours(StoreContender):
    storage: Storage

    async def open(self) -> Mapping[str, str]:
        self.storage, about = self.opened()
        self.sessions = [
            self.storage.session(Payer(f"0x{number + 1:040x}", CHAIN))
            for number in range(self.workload.sessions)
        ]
        return about

    @abstractmethod
    def opened(self) -> tuple[Storage, Mapping[str, str]]:
        """The store, and what matters of it."""

    async def get(self, payer: int, key: str) -> str | None:
        return await self.sessions[payer].get(key)

    async def put(self, payer: int, key: str, value: str) -> None:
        await self.sessions[payer].set(key, value)

    async def end(self) -> None:
        if hasattr(self, "storage"):
            await self.storage.close()


class StoreMemory(_Ours):
    """A `MemoryStore`."""

    name = "store-memory"
    says = (
        "Ours: half gets and half puts of 256 characters in a MemoryStore, spread over 1,000 "
        "payers (at size 1) of 16 keys by one caller: limits, quotas, lives. Nothing is durable."
    )
    callers = 1

    def opened(self) -> tuple[Storage, Mapping[str, str]]:
        return Storage(MemoryStore(max_entries=KEYS * self.workload.sessions)), {}


class StoreSqlite(_Ours):
    """A `SqlStore` on SQLite."""

    name = "store-sqlite"
    says = (
        "Ours: the same in a SqlStore on SQLite, WAL and synchronous=FULL, asked by "
        f"{CONNECTIONS} tasks that wait; what waits is committed together."
    )

    def opened(self) -> tuple[Storage, Mapping[str, str]]:
        return Storage(SqlStore(SqliteFile(self.workload.directory / "store.sqlite3"))), {}


class StoreValkey(_Ours):
    """A `ValkeyStore`."""

    name = "store-valkey"
    says = (
        "Ours: the same in a ValkeyStore, appendfsync always: one Lua script a verb, with limits, "
        f"quotas and lives, asked by {CONNECTIONS} tasks of one process."
    )

    def opened(self) -> tuple[Storage, Mapping[str, str]]:
        self.server = ValkeyServer(settings=VALKEY_SETTINGS).__enter__()
        return Storage(ValkeyStore(self.server.url)), self.server.settings

    async def end(self) -> None:
        await super().end()
        if hasattr(self, "server"):
            self.server.remove()


class PlainDict(StoreContender):
    """What a program without a store has."""

    name = "plain-dict"
    says = (
        "The same in a Python dict, awaited as a store is, by one caller: no limits, no quotas, no "
        "lives, no payers but in the key. Nothing is durable."
    )
    callers = 1

    async def open(self) -> Mapping[str, str]:
        self.kept: dict[tuple[int, str], str] = {}
        return {}

    async def get(self, payer: int, key: str) -> str | None:
        return self.kept.get((payer, key))

    async def put(self, payer: int, key: str, value: str) -> None:
        self.kept[payer, key] = value

    async def end(self) -> None:
        """The memory goes with the process."""


class PlainValkey(StoreContender):
    """GET and SET."""

    name = "plain-valkey"
    says = (
        "The same by GET and SET of Valkey, appendfsync always, with the same client library, by "
        f"{CONNECTIONS} tasks of one process: no limits, no quotas, no lives, no order of keys."
    )

    async def open(self) -> Mapping[str, str]:
        self.server = ValkeyServer(settings=VALKEY_SETTINGS).__enter__()
        self.client: Any = valkey.asyncio.Valkey.from_url(self.server.url, decode_responses=True)
        return self.server.settings

    async def get(self, payer: int, key: str) -> str | None:
        found: str | None = await self.client.get(f"{payer}:{key}")
        return found

    async def put(self, payer: int, key: str, value: str) -> None:
        assert await self.client.set(f"{payer}:{key}", value)

    async def end(self) -> None:
        if hasattr(self, "client"):
            await self.client.aclose()
        if hasattr(self, "server"):
            self.server.remove()


class FreeRead(StoreSqlite):
    """A read by `sign-in-with-x`."""

    name = "free-read"
    says = (
        "Ours: reads that are free by sign-in-with-x, without HTTP, on the same SqlStore: the "
        "message composed and its signature recovered, its nonce spent durably, then the get. "
        f"{CONNECTIONS} payers that wait, new ones after {SIGN_INS_MAX} reads each; the messages "
        "are signed while the clock stands still."
    )
    unit = "reads/s"

    async def _run(self, seconds: float) -> Rate:
        latencies_ms: list[float] = []
        taken, left = 0.0, 0
        visits = Visits("https://bench.test")
        grants = self.storage.grants
        assert grants is not None

        async def read(payer: Payer, messages: list[dict[str, str]]) -> None:
            for signed in messages:
                asked = time.perf_counter()
                entered = await visits.enter(grants, signed, "/v1/store/key", (CHAIN,))
                assert entered == payer
                assert await self.storage.session(entered).get("key") == VALUE
                latencies_ms.append((time.perf_counter() - asked) * 1000)

        while taken < seconds:
            if left == 0:
                accounts = [Account.create() for _ in range(self.callers)]
                payers = [Payer(account.address, CHAIN) for account in accounts]
                left = SIGN_INS_MAX // SIGNED
                for payer in payers:
                    await visits.begin(grants, payer)
                    await self.storage.session(payer).set("key", VALUE)
            left -= 1
            signed = [[self._signed(visits, each) for _ in range(SIGNED)] for each in accounts]
            started = time.perf_counter()
            await asyncio.gather(*(read(*each) for each in zip(payers, signed, strict=True)))
            taken += time.perf_counter() - started
        return Rate(len(latencies_ms), taken, latencies_ms)

    def _signed(self, visits: Visits, account: Any) -> dict[str, str]:
        offered = visits.offer("/v1/store/key", (CHAIN,))[EXTENSION]
        fields = {**offered["info"], **offered["supportedChains"][0], "address": account.address}
        signature = account.sign_message(encode_defunct(text=message(fields))).signature
        return {**fields, "signature": f"0x{signature.hex()}"}
