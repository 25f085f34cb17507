"""How often an agent's key may be used: exactly, on both databases, over restarts and for ever."""

import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import Conflict, InvalidInput, RateLimited, Unauthenticated
from engine.workspaces import agent_keys
from engine.workspaces.agent_access import HOUR_MS
from engine.workspaces.agent_keys import NewAgentKey
from tests.ledger.oracle import query
from tests.world import WORKSPACE, World


def made(world: World, **fields: Any) -> tuple[str, str]:
    """The id and the secret of a new key."""
    new = NewAgentKey(**{"name": "key", "agent_id": "bot"} | fields)
    key, secret = world.engine.keys.agents.create(WORKSPACE, new, by="key_of_a_test")
    return key.id, secret


def advance(world: World, by_ms: int) -> None:
    """Let time pass."""
    world.clock.advance(by_ms)  # type: ignore[attr-defined]


def admitted(world: World, secret: str) -> bool:
    """Whether a request may be made now."""
    try:
        _, counted = world.engine.keys.use.admit(secret, None)
        counted.result()
    except RateLimited as refusal:
        assert refusal.retry_after > 0
        return False
    return True


def test_of_any_hour_exactly_the_limit_is_let_through(fresh: World) -> None:
    """Against a plain list of times, with restarts and at the edges of the window."""
    limit, drawn = 7, random.Random(7)
    key_id, secret = made(fresh, rate_limit_per_hour=limit)
    times: deque[int] = deque()
    let_through = 0
    for step in range(150):
        advance(fresh, drawn.choice((0, 1, 60_000, HOUR_MS // limit, HOUR_MS - 1, HOUR_MS)))
        if step % 50 == 49:
            fresh.reopen()
        now_ms = fresh.clock()
        while times and times[0] <= now_ms - HOUR_MS:
            times.popleft()
        expected = len(times) < limit
        assert admitted(fresh, secret) == expected, step
        if expected:
            times.append(now_ms)
            let_through += 1
    [key], _ = fresh.engine.keys.agents.page(WORKSPACE, agent_id=None, offset=0, limit=10)
    assert (key.requests, key.last_used_ms) == (let_through, times[-1])
    kept = query(fresh.store, "SELECT count(*) FROM agent_key_uses WHERE key_id = ?", key_id)
    assert kept[0][0] <= limit
    assert let_through > 3 * limit


def test_callers_at_once_use_exactly_the_limit(fresh: World) -> None:
    _, secret = made(fresh, rate_limit_per_hour=20)
    with ThreadPoolExecutor(8) as threads:
        heard = list(threads.map(lambda _: admitted(fresh, secret), range(60)))
    assert heard.count(True) == 20


def test_a_key_ends_when_it_expires_and_when_it_is_revoked(fresh: World) -> None:
    _, secret = made(fresh, lifetime_s=60)
    key_id, other = made(fresh)
    _, counted = fresh.engine.keys.use.admit(other, None)
    fresh.engine.keys.agents.revoke(WORKSPACE, key_id, by="key_of_a_test")
    counted.result()  # it was counted before
    with pytest.raises(Unauthenticated) as refused:
        fresh.engine.keys.use.admit(other, None)
    assert refused.value.code == "api_key_revoked"
    advance(fresh, 59_999)
    assert admitted(fresh, secret)
    advance(fresh, 1)
    with pytest.raises(Unauthenticated) as refused:
        admitted(fresh, secret)
    assert refused.value.code == "api_key_expired"


def test_what_no_key_can_have_is_refused_by_name(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for field, value in (
        ("agent_id", "with space"),
        ("scopes", ()),
        ("rate_limit_per_hour", 0),
        ("ip_allowlist", ("192.0.2.0/99",)),
        ("ip_allowlist", ("192.0.2.1",) * 65),
    ):
        with pytest.raises(InvalidInput, match=field):
            made(fresh, **{field: value})
    with pytest.raises(InvalidInput, match="expires_in_seconds"):
        made(fresh, lifetime_s=0)
    monkeypatch.setattr(agent_keys, "AGENT_KEYS_MAX", 1)
    made(fresh, lifetime_s=60)
    with pytest.raises(Conflict, match="revoke one"):
        made(fresh)
    advance(fresh, 60_000)
    made(fresh)
