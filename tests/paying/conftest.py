"""One installation, one shop and one agent for all tests of the paying clients."""

from collections.abc import Iterator

import pytest
from x402.mechanisms.evm.asset_cache import reset_asset_contract_cache

from tallystick import Client
from tests.paying.shop import Agent, open_shop, usdc
from tests.rest.served import Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Shared: leave it usable."""
    reset_asset_contract_cache()  # the SDK remembers for the whole process what has code
    with Served(tmp_path_factory.mktemp("paying") / "data") as opened:
        yield opened


@pytest.fixture(scope="package")
def shop(served: Served) -> Iterator[str]:
    """The URL of a shop that settles by our own facilitator."""
    network = served.world.engine.deployment.chain
    with open_shop(f"{served.url}/facilitator", network, usdc(served)) as url:
        yield url


@pytest.fixture(scope="package")
def agent(served: Served) -> Agent:
    """Shared, with a hundred dollars."""
    return Agent(served)


@pytest.fixture
def client(served: Served, agent: Agent) -> Iterator[Client]:
    """The agent's."""
    with Client(served.url, session_token=agent.token) as opened:
        yield opened
