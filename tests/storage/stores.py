"""Stores of every kind, on real servers."""

import itertools
import secrets
from pathlib import Path

from engine.clock import Clock
from engine.storage.limits import Limits
from engine.storage.memory import MemoryStore
from engine.storage.payer import Payer
from engine.storage.postgres import PostgresPool
from engine.storage.session import Storage
from engine.storage.sql import SqlStore
from engine.storage.sqlite import SqliteFile
from engine.storage.valkey import ValkeyStore

KINDS = ("memory", "sqlite", "postgres", "valkey", "valkey-cluster")
DURABLE = KINDS[1:]
CHAIN = "eip155:8453"

_numbers = itertools.count(secrets.randbits(120))


def new_payer(chain: str = CHAIN) -> Payer:
    """Somebody who never stored anything."""
    return Payer(f"0x{next(_numbers):040x}", chain)


def open_storage(
    kind: str,
    place: str,
    *,
    ttl_ms: int = 0,
    limits: Limits | None = None,
    clock: Clock | None = None,
) -> Storage:
    """A store at `place`: the path of a file, or the URI of a server."""
    match kind:
        case "memory":
            clocks = {} if clock is None else {"clock": clock}
            return Storage(MemoryStore(ttl_ms=ttl_ms, limits=limits, **clocks))
        case "sqlite":
            file = SqliteFile(Path(place))
            return Storage(SqlStore(file, ttl_ms=ttl_ms, limits=limits, clock=clock))
        case "postgres":
            pool = PostgresPool(place)
            return Storage(SqlStore(pool, ttl_ms=ttl_ms, limits=limits, clock=clock))
    cluster = kind == "valkey-cluster"
    return Storage(ValkeyStore(place, cluster=cluster, ttl_ms=ttl_ms, limits=limits, clock=clock))
