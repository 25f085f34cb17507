"""An installation that may send to this machine, and a receiver there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.clock import ManualClock
from tests.ledger.asking import START_MS
from tests.webhooks.receiver import Receiver
from tests.world import World, begin


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    """It delivers when a test says `world.engine.tick()`."""
    begin(tmp_path / "data", clock)
    opened = World(tmp_path / "data", clock, webhook_networks="127.0.0.0/8")
    yield opened
    opened.engine.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as opened:
        yield opened
