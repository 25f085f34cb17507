"""Whether a request with an agent's key may be made: the key is valid, it comes from where it may,
and it is not one too many in the hour before it.

    of any instant t, at most `rate_limit_per_hour` requests were let through in (t - 1 h, t]

A request is counted in a transaction of its own before anything else is done for it, so that the
count is exact for any number of processes and after a kill. What is refused for coming too often
does not count, and is refused from memory until it need not be.
"""

import hmac
import json
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import sqlalchemy as sa

from engine.clock import Clock
from engine.db.database import Database
from engine.db.keys import AgentKey, AgentKeyUse
from engine.db.tables import table
from engine.errors import Forbidden, RateLimited, Unauthenticated
from engine.identifiers import secret_hash
from engine.ledger.batch import Batch
from engine.ledger.writer import Writer
from engine.workspaces.agent_keys import AGENT_KEY_PREFIX, LIVE_AGENT_KEY_PREFIX

HOUR_MS = 3_600_000
REFUSED_MAX = 10_000
"""Of so many keys it is remembered that they came too often; of any other it is read again."""

_COUNTED = "agent_key/"
"""Before the id of a key that is counted, among the streams of a batch; see `budget_stream`."""
_keys = table(AgentKey)
_uses = table(AgentKeyUse)


@dataclass(frozen=True, slots=True)
class AgentCaller:
    """A caller who presented an agent's key."""

    workspace_id: str
    key_id: str
    agent_id: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the limit of a key leaves: `remaining` of `limit` requests now, and one more at
    `frees_ms` (milliseconds since the epoch)."""

    limit: int
    remaining: int
    frees_ms: int


def is_agent_key(secret: str | None) -> bool:
    """Whether a secret looks like an agent's key."""
    return secret is not None and secret.startswith((AGENT_KEY_PREFIX, LIVE_AGENT_KEY_PREFIX))


class AgentAccess:
    """Recognises the keys of agents and counts what is asked with them."""

    def __init__(self, database: Database, writer: Writer, stopwatch: Clock) -> None:
        """`stopwatch` is a clock that nobody sets."""
        self._database = database
        self._writer = writer
        self._stopwatch = stopwatch
        self._refused_until: dict[str, int] = {}
        writer.on_batch(_hold)

    def admit(self, secret: str, address: str | None) -> tuple[AgentCaller, "Future[Allowance]"]:
        """The holder of a key who asks from `address`, and what the key's limit leaves.

        Nothing may be done before the future is done.

        Raises, here or in the future:
            Unauthenticated: nobody's key, or it is revoked or expired; the code says so.
            Forbidden: it may not be used from there.
            RateLimited: it was used too often in the last hour.
        """
        row = self._recognise(secret)
        _check_address(json.loads(row.ip_allowlist_json), address)
        self._check_refused(row.id, row.rate_limit_per_hour)
        scopes = frozenset(json.loads(row.scopes_json))
        caller = AgentCaller(row.workspace_id, row.id, row.agent_id, scopes)
        return caller, self._writer.submit(lambda batch: self._count(batch, row), _COUNTED + row.id)

    def _recognise(self, secret: str) -> Any:
        wanted = secret_hash(secret)
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_keys).where(_keys.c.secret_hash == wanted)).first()
        if row is None or not hmac.compare_digest(row.secret_hash, wanted):
            raise Unauthenticated("the agent key is not valid")
        _check_revoked(row)
        return row

    def _check_refused(self, key_id: str, limit: int) -> None:
        until = self._refused_until.get(key_id)
        if until is None:
            return
        left_ms = until - self._stopwatch()
        if left_ms > 0:
            raise _too_often(limit, left_ms)
        self._refused_until.pop(key_id, None)

    def _count(self, batch: Batch, key: Any) -> Allowance:
        """On the writer's thread, with the row of the key held."""
        limit, ours = key.rate_limit_per_hour, _uses.c.key_id == key.id
        row = batch.read(sa.select(_keys).where(_keys.c.id == key.id)).one()
        _check_revoked(row)
        if row.expires_ms is not None and batch.now_ms >= row.expires_ms:
            raise Unauthenticated("the agent key is expired", code="api_key_expired")
        uses = sa.select(_uses.c.number, _uses.c.at_ms).where(ours)
        newest = batch.read(uses.order_by(_uses.c.number.desc()).limit(1)).first()
        # Another process may have begun later and counted earlier; times follow the numbers.
        now_ms = batch.now_ms if newest is None else max(batch.now_ms, newest.at_ms)
        within = uses.where(_uses.c.at_ms > now_ms - HOUR_MS)
        first = batch.read(within.order_by(_uses.c.at_ms, _uses.c.number).limit(1)).first()
        number = 0 if newest is None else newest.number + 1
        used = 0 if first is None else number - first.number
        frees_ms = (now_ms if first is None else first.at_ms) + HOUR_MS
        if used >= limit:
            self._remember(key.id, frees_ms - now_ms)
            raise _too_often(limit, frees_ms - now_ms)
        batch.insert(_uses, {"key_id": key.id, "number": number, "at_ms": now_ms})
        batch.update(sa.delete(_uses).where(ours, _uses.c.at_ms <= now_ms - HOUR_MS))
        return Allowance(limit, limit - used - 1, frees_ms)

    def _remember(self, key_id: str, left_ms: int) -> None:
        if len(self._refused_until) >= REFUSED_MAX:
            oldest = list(self._refused_until)[0]  # noqa: RUF015 (other threads change it)
            self._refused_until.pop(oldest, None)
        self._refused_until[key_id] = self._stopwatch() + left_ms


def _hold(batch: Batch, streams: Collection[str]) -> None:
    """Have other processes wait for the rows of all keys that this batch counts.

    They are held in one order: two processes that held them as requests came would wait for each
    other, and everybody in their batches with them, until the database ends one of the two.
    """
    counted = [each.removeprefix(_COUNTED) for each in streams if each.startswith(_COUNTED)]
    if counted and batch.shared:
        theirs = sa.select(_keys.c.id).where(_keys.c.id.in_(counted))
        batch.read(theirs.order_by(_keys.c.id).with_for_update()).all()


def _check_revoked(row: Any) -> None:
    if row.revoked_ms is not None:
        raise Unauthenticated("the agent key is revoked", code="api_key_revoked")


def _check_address(allowed: list[str], address: str | None) -> None:
    """Refuse an address that is in none of the networks, if there are any."""
    if not allowed:
        return
    found = _address(address)
    if found is None or not any(found in ip_network(network) for network in allowed):
        raise Forbidden("the agent key may not be used from this address", code="ip_not_allowed")


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    """An address; one of IPv4 that is mapped to one of IPv6 (RFC 4291, 2.5.5.2) is that of IPv4."""
    try:
        found = ip_address(text or "")
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _too_often(limit: int, left_ms: int) -> RateLimited:
    retry_after = -(-left_ms // 1_000)
    return RateLimited(
        f"more than {limit} requests in an hour", retry_after=retry_after, limit=limit
    )
