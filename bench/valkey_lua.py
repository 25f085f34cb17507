"""Valkey deciding in a Lua script: what one would write for speed."""

import itertools
import random
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from bench.contender import (
    AMOUNT_MICRO_USD,
    CONNECTIONS,
    LIMIT_MICRO_USD,
    MERCHANTS,
    Contender,
    Rate,
)
from engine.policy.limits import DAY_MS, MONTH_MS, WEEK_MS
from tests.servers import ValkeyServer

PIPELINE_REQUESTS = 16
SETTINGS = {"auto-aof-rewrite-percentage": "0"}  # no rewriting of the file beside the runs
_ALLOWED = b":1\r\n"

SCRIPT = f"""
local session, key = KEYS[1], KEYS[2]
local earlier = redis.call('GET', key)
if earlier then return tonumber(earlier) end
local amount, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lengths = {{{DAY_MS}, {WEEK_MS}, {MONTH_MS}}}
for window, length in ipairs(lengths) do
    local spends = session .. ':' .. window
    local oldest = redis.call('LINDEX', spends, 0)
    while oldest do
        local at, spent = string.match(oldest, '(%d+):(%d+)')
        if tonumber(at) > now - length then break end
        redis.call('LPOP', spends)
        redis.call('HINCRBY', session, window, -tonumber(spent))
        oldest = redis.call('LINDEX', spends, 0)
    end
    if tonumber(redis.call('HGET', session, window) or 0) + amount > limit then
        redis.call('SET', key, 0, 'PX', {MONTH_MS})
        return 0
    end
end
for window = 1, 3 do
    redis.call('RPUSH', session .. ':' .. window, string.format('%.0f:%.0f', now, amount))
    redis.call('HINCRBY', session, window, amount)
end
redis.call('HSET', session .. ':payments', key, ARGV[3])
redis.call('SET', key, 1, 'PX', {MONTH_MS})
return 1
"""


class ValkeyLua(Contender):
    """One EVALSHA a request, many on their way at once."""

    name = "valkey-lua"
    says = (
        "Valkey alone, one Lua script a request: idempotency key, three exact windows by running "
        "sums and queues of what leaves them, the payment in a hash; appendfsync always. "
        f"{CONNECTIONS} connections, {PIPELINE_REQUESTS} requests on their way in each. A latency "
        "is that of a whole pipeline. No audit record, no event, no log; all data in memory."
    )

    def prepare(self) -> Mapping[str, str]:
        self.server = ValkeyServer(settings=SETTINGS).__enter__()
        self.client = self.server.client()
        self.script = self.client.script_load(SCRIPT)
        return {
            "Valkey": str(self.client.info("server")["valkey_version"]),
            "sessions": str(self.workload.sessions),
            **self.server.settings,
        }

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        self.client.flushall()
        requests = self._requests(self.workload.draw(self.runs))
        latencies_ms: list[float] = []
        asked: dict[socket.socket, float] = {}
        answers: dict[socket.socket, bytes] = {}

        def ask(connection: socket.socket) -> None:
            pipeline = b"".join(itertools.islice(requests, PIPELINE_REQUESTS))
            answers[connection], asked[connection] = b"", time.perf_counter()
            connection.sendall(pipeline)

        with ExitStack() as opened:
            selector = opened.enter_context(selectors.DefaultSelector())
            connections = [opened.enter_context(self._connection()) for _ in range(CONNECTIONS)]
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            started, worked = time.perf_counter(), time.process_time()
            for connection in connections:
                ask(connection)
            while asked:
                for key, _ in selector.select():
                    connection = key.data
                    answers[connection] += connection.recv(4096)
                    if len(answers[connection]) < PIPELINE_REQUESTS * len(_ALLOWED):
                        continue
                    assert answers[connection] == _ALLOWED * PIPELINE_REQUESTS, answers
                    now = time.perf_counter()
                    latencies_ms.append((now - asked.pop(connection)) * 1000)
                    if now - started < seconds:
                        ask(connection)
            taken, busy = time.perf_counter() - started, time.process_time() - worked
        count = PIPELINE_REQUESTS * len(latencies_ms)
        assert self._stored() == count
        return Rate(count, taken, latencies_ms, busy / taken)

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "server"):
            self.server.remove()

    def _connection(self) -> socket.socket:
        connection = socket.create_connection((self.server.host, self.server.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _requests(self, draw: random.Random) -> Iterator[bytes]:
        """EVALSHA as the protocol writes it (RESP, "Sending commands to a server"), without end."""
        for number in itertools.count():
            session = f"session-{draw.randrange(self.workload.sessions)}"
            merchant = f"merchant-{draw.randrange(MERCHANTS)}"
            parts = (
                *("EVALSHA", self.script, "2", session, f"{session}-{number:012}"),
                *(str(AMOUNT_MICRO_USD), str(LIMIT_MICRO_USD), merchant),
            )
            lines = [f"*{len(parts)}"]
            for part in parts:
                lines += [f"${len(part)}", part]
            yield ("\r\n".join(lines) + "\r\n").encode()

    def _stored(self) -> int:
        pipeline = self.client.pipeline(transaction=False)
        for number in range(self.workload.sessions):
            pipeline.hlen(f"session-{number}:payments")
        return sum(pipeline.execute())
