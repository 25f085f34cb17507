"""The `limits` library: what a web service that only wants rate limits would take."""

import itertools
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from limits import RateLimitItemPerDay, RateLimitItemPerMonth
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter

from bench.contender import CONNECTIONS, Contender, Rate
from bench.valkey_lua import SETTINGS as VALKEY_SETTINGS
from tests.servers import ValkeyServer

LIMIT_PAYMENTS = 1_000_000_000


class LimitsMemory(Contender):
    """Moving windows in this process's memory."""

    name = "limits-memory"
    says = (
        "The library `limits`, moving window, in memory, one thread: a request hits a day's, a "
        "week's and a month's limit. It counts requests and not money, the three hits are not one "
        "step, nothing is durable, and there are no idempotency keys."
    )
    callers = 1

    def prepare(self) -> Mapping[str, str]:
        self.items = (
            RateLimitItemPerDay(LIMIT_PAYMENTS, 1),
            RateLimitItemPerDay(LIMIT_PAYMENTS, 7),
            RateLimitItemPerMonth(LIMIT_PAYMENTS, 1),
        )
        return {"limits": version("limits"), "sessions": str(self.workload.sessions)}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        limiter = MovingWindowRateLimiter(self._empty_storage())
        started = time.perf_counter()

        def call(caller: int) -> list[float]:
            draw = self.workload.draw(f"{self.runs}/{caller}")
            latencies_ms = []
            while (asked := time.perf_counter()) - started < seconds:
                session = f"session-{draw.randrange(self.workload.sessions)}"
                assert all(limiter.hit(item, session) for item in self.items)
                latencies_ms.append((time.perf_counter() - asked) * 1000)
            return latencies_ms

        with ThreadPoolExecutor(self.callers) as threads:
            every = list(itertools.chain.from_iterable(threads.map(call, range(self.callers))))
        return Rate(len(every), time.perf_counter() - started, every)

    def close(self) -> None:
        """The memory goes with the process."""

    def _empty_storage(self) -> Storage:
        return MemoryStorage()


class LimitsValkey(LimitsMemory):
    """The same with its windows in Valkey."""

    name = "limits-valkey"
    says = (
        "The same library on Valkey with appendfsync always, asked by "
        f"{CONNECTIONS} threads of one process; it runs a script for each of the three hits."
    )
    callers = CONNECTIONS

    def prepare(self) -> Mapping[str, str]:
        self.server = ValkeyServer(settings=VALKEY_SETTINGS).__enter__()
        self.storage = RedisStorage(self.server.url)
        return {**super().prepare(), **self.server.settings}

    def close(self) -> None:
        if hasattr(self, "storage"):
            self.storage.storage.close()
        if hasattr(self, "server"):
            self.server.remove()

    def _empty_storage(self) -> Storage:
        self.storage.storage.flushall()
        return self.storage
