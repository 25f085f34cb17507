"""A stall for each test, on one embedded chain for all."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from x402.mechanisms.evm.asset_cache import reset_asset_contract_cache

from engine.chain.embedded import EmbeddedChain
from engine.payments.authorization import TokenDomain
from tests.gate.stall import Stall
from tests.payments.paying import Till as Facility
from tests.payments.paying import usdc


@pytest.fixture
def anyio_backend() -> str:
    """The loop that async tests run on."""
    return "asyncio"


@pytest.fixture(scope="package")
def chain() -> Iterator[EmbeddedChain]:
    """Shared."""
    reset_asset_contract_cache()  # the SDK remembers for the whole process what has code
    opened = EmbeddedChain(None)
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def domain(chain: EmbeddedChain) -> TokenDomain:
    """The test USDC there."""
    return usdc(chain)


@pytest.fixture
def facility(chain: EmbeddedChain, domain: TokenDomain, tmp_path: Path) -> Iterator[Facility]:
    """A facilitator, and somebody who has a dollar."""
    path = tmp_path / "claims.sqlite3"
    opened = Facility(gateway=chain, bank=chain.faucet, domain=domain, path=path)
    yield opened
    opened.facilitator.close()


@pytest.fixture
async def stall(facility: Facility, tmp_path: Path) -> AsyncIterator[Stall]:
    """Sells by SQLite."""
    opened = Stall(facility, tmp_path)
    yield opened
    await opened.close()
