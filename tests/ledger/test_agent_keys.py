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


def valid(world: World) -> int:
    """How many keys may be used."""
    keys, _ = world.engine.keys.agents.page(WORKSPACE, agent_id=None, offset=0, limit=1_000)
    return sum(
        key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > world.clock())
        for key in keys
    )


def advance(world: World, by_ms: int) -> None:
    """Let time pass."""
    world.clock.advance(by_ms)  # type: ignore[attr-defined]


def admitted(world: World, secret: str) -> bool:
    """Whether a request may be made now."""
    try:
        _, counted = world.engine.keys.use.admit(secret, None)
        counted.result()
    except RateLimited:
        return False
    return True


def test_of_any_hour_exactly_the_limit_is_let_through(world: World) -> None:
    """Against a plain list of times, with restarts and at the edges of the window."""
    limit, drawn = 7, random.Random(7)
    key_id, secret = made(world, rate_limit_per_hour=limit)
    times: deque[int] = deque()
    let_through = 0
    for step in range(60):
        advance(world, drawn.choice((0, 1, 60_000, HOUR_MS // limit, HOUR_MS - 1, HOUR_MS)))
        if step == 40:
            world.reopen()
        now_ms = world.clock()
        while times and times[0] <= now_ms - HOUR_MS:
            times.popleft()
        expected = len(times) < limit
        assert admitted(world, secret) == expected, step
        if expected:
            times.append(now_ms)
            let_through += 1
    [key], _ = world.engine.keys.agents.page(WORKSPACE, agent_id=None, offset=0, limit=10)
    assert (key.requests, key.last_used_ms) == (let_through, times[-1])
    kept = query(world.store, "SELECT count(*) FROM agent_key_uses WHERE key_id = ?", key_id)
    assert kept[0][0] <= limit
    assert let_through > 3 * limit


def test_callers_at_once_use_exactly_the_limit(world: World) -> None:
    _, secret = made(world, rate_limit_per_hour=20)
    with ThreadPoolExecutor(8) as threads:
        heard = list(threads.map(lambda _: admitted(world, secret), range(60)))
    assert heard.count(True) == 20


def test_a_key_ends_when_it_expires_and_when_it_is_revoked(world: World) -> None:
    _, secret = made(world, lifetime_s=60)
    key_id, other = made(world)
    _, counted = world.engine.keys.use.admit(other, None)
    world.engine.keys.agents.revoke(WORKSPACE, key_id, by="key_of_a_test")
    counted.result()  # it was counted before
    with pytest.raises(Unauthenticated) as refused:
        world.engine.keys.use.admit(other, None)
    assert refused.value.code == "api_key_revoked"
    advance(world, 59_999)
    assert admitted(world, secret)
    advance(world, 1)
    with pytest.raises(Unauthenticated) as refused:
        admitted(world, secret)
    assert refused.value.code == "api_key_expired"


def test_what_no_key_can_have_is_refused_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for field, value in (
        ("agent_id", "with space"),
        ("scopes", ()),
        ("rate_limit_per_hour", 0),
        ("ip_allowlist", ("192.0.2.0/99",)),
        ("ip_allowlist", ("192.0.2.1",) * 65),
    ):
        with pytest.raises(InvalidInput, match=field):
            made(world, **{field: value})
    with pytest.raises(InvalidInput, match="expires_in_seconds"):
        made(world, lifetime_s=0)
    advance(world, 60_000)  # those that end are over
    left = valid(world)
    monkeypatch.setattr(agent_keys, "AGENT_KEYS_MAX", left + 1)
    made(world, lifetime_s=60)
    with pytest.raises(Conflict, match="revoke one"):
        made(world)
    advance(world, 60_000)
    made(world)
