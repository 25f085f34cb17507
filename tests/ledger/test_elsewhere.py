"""Time zones, daylight saving and forks: where the process is makes no difference to the ledger."""

import os
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from api.rest.views import time_text
from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.policy.limits import Limits
from tests.ledger.oracle import query
from tests.world import USD, World

STORES = ("sqlite",)
HOUR_MS = 3_600_000
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the process be somewhere; it is put back in the end."""

    def be(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield be
    monkeypatch.undo()
    time.tzset()


def test_no_zone_and_no_change_of_clocks_moves_anything(world: World, anywhere: Any) -> None:
    """Across the hour that New York leaves out."""
    clock = world.clock
    assert isinstance(clock, ManualClock)
    change = datetime(2027, 3, 14, 7, tzinfo=UTC)
    clock.now_ms = int(change.timestamp()) * 1000 - 25 * HOUR_MS
    limits = Limits(None, 30 * USD, None, None, None)
    views = [world.session(limits, duration_ms=4 * 24 * HOUR_MS) for _ in ZONES]
    told: list[list[Any]] = [[] for _ in ZONES]
    for half_hour in range(52):
        for zone, view, answers in zip(ZONES, views, told, strict=True):
            anywhere(zone)
            payment = world.pay(view, 2, hold=half_hour % 3 == 0)
            times = [time_text(payment.decided_ms), time_text(payment.expires_ms or 0)]
            answers.append((payment.decision, payment.state, *times))
        clock.advance(HOUR_MS // 2 + 1)
    assert told[0] == told[1] == told[2] == told[3]
    assert {state for _, state, *_ in told[0]} == {"held", "captured", "denied"}


def test_an_engine_that_was_opened_before_a_fork_decides_nothing_after_it(world: World) -> None:
    view = world.session()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it decided"
        try:
            world.pay(view, 1)
        except Unavailable as refusal:
            said = refusal.message
        finally:
            os.write(theirs, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 1000).decode() == "the engine was opened before this process was made"
    os.close(ours)
    os.close(theirs)
    assert query(world.store, "SELECT 1 FROM decisions WHERE session_id = ?", view.id) == []
    assert world.pay(view, 1).state == "captured"
