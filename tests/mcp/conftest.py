"""One served installation for all tests of the tools, and two sessions of it."""

from collections.abc import Iterator

import pytest
from x402.mechanisms.evm.asset_cache import reset_asset_contract_cache

from tests.mcp.hands import LIMITS, Hands
from tests.paying.shop import Agent
from tests.rest.served import Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Shared: leave it usable."""
    reset_asset_contract_cache()  # the SDK remembers for the whole process what has code
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALLYSTICK_MCP_HOSTS", '["Pay.Example.com"]')
        data = tmp_path_factory.mktemp("mcp") / "data"
        with Served(data, sign_in_origin="https://pay.example.com") as opened:
            yield opened


@pytest.fixture(scope="package")
def agent(served: Served) -> Agent:
    """A session whose key has a hundred dollars; more than ten at once wants an approval."""
    return Agent(served, LIMITS)


@pytest.fixture(scope="package")
def other(served: Served) -> Agent:
    """Another one of the same workspace, which has nothing to do with it."""
    return Agent(served, LIMITS)


@pytest.fixture
def hands(served: Served, agent: Agent) -> Hands:
    """The tools of `/mcp`, with the agent's token."""
    return Hands(served.url, agent.token)
