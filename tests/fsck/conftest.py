"""The story, told once, and the chain it was told on."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.audit import consent
from engine.audit.chain import Anchoring
from engine.chain import contracts
from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock, system_clock
from engine.evidence.chain_view import GatewayView
from engine.fsck import transactions
from engine.fsck.check import Chain
from engine.grant import Grant
from tests.fsck.story import tell
from tests.world import World


def pytest_addoption(parser: pytest.Parser) -> None:
    """`scripts/every-cell` gives it."""
    parser.addoption("--every-cell", action="store_true", help="change every cell of every row")


@pytest.fixture
def every(request: pytest.FixtureRequest) -> bool:
    """Whether all rows are changed, and a few of each table otherwise."""
    return bool(request.config.getoption("--every-cell"))


@dataclass(frozen=True)
class Told:
    """A data file that nobody has open, and its chain."""

    file: Path
    chain: Chain
    anchored: tuple[Anchoring, ...]


@pytest.fixture(scope="package", autouse=True)
def remembering() -> Iterator[None]:
    """One database is examined thousands of times, each time with one change: what signatures and
    ABI make of the same values is worked out once."""
    pure = (
        (transactions, "read_transaction"),
        (contracts, "registering"),
        (contracts, "revoking"),
        (consent, "signer"),
        (Grant, "hash"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for where, name in pure:
            remembered = functools.lru_cache(maxsize=1_000, typed=True)(getattr(where, name))
            patch.setattr(where, name, remembered)
        yield


@pytest.fixture(scope="package")
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
