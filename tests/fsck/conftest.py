"""The story, told once, and the chain it was told on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.audit.chain import Anchoring
from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock, system_clock
from engine.evidence.chain_view import GatewayView
from engine.fsck.check import Chain
from tests.fsck.story import tell
from tests.world import World


@dataclass(frozen=True)
class Told:
    """A data file that nobody has open, and its chain."""

    file: Path
    chain: Chain
    anchored: tuple[Anchoring, ...]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The story on SQLite."""
    clock = ManualClock(system_clock())
    world = World(tmp_path_factory.mktemp("fsck") / "data", clock)
    tell(world, clock)
    deployment = world.engine.deployment
    world.engine.close()
    gateway = EmbeddedChain(world.settings.data_dir / "chain.sqlite3")
    anchored = GatewayView(gateway).anchorings(deployment.anchors, deployment.log_id)
    yield Told(
        world.settings.data_dir / "ledger.sqlite3",
        Chain(gateway, deployment.registry),
        tuple(anchored),
    )
    gateway.close()
