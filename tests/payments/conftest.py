"""Tills on an embedded chain of a test's own, and on an Anvil that all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from x402.mechanisms.evm.asset_cache import reset_asset_contract_cache

from engine.chain.embedded import EmbeddedChain
from engine.payments.authorization import TokenDomain
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.payments.paying import Till, usdc


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    """The SDK remembers for the whole process which addresses have code."""
    reset_asset_contract_cache()


@pytest.fixture(scope="package")
def embedded() -> Iterator[EmbeddedChain]:
    """An embedded chain, shared."""
    chain = EmbeddedChain(None)
    yield chain
    chain.close()


@pytest.fixture(scope="package")
def embedded_usdc(embedded: EmbeddedChain) -> TokenDomain:
    """The test token there."""
    return usdc(embedded)


@pytest.fixture
def till(embedded: EmbeddedChain, embedded_usdc: TokenDomain, tmp_path: Path) -> Iterator[Till]:
    """On the embedded chain, with accounts of its own."""
    opened = Till(
        gateway=embedded,
        bank=embedded.faucet,
        domain=embedded_usdc,
        path=tmp_path / "claims.sqlite3",
    )
    yield opened
    opened.facilitator.close()


@pytest.fixture(scope="module")
def busy_till(
    embedded: EmbeddedChain,
    embedded_usdc: TokenDomain,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Till]:
    """The same, shared by tests that have nothing settled."""
    opened = Till(
        gateway=embedded,
        bank=embedded.faucet,
        domain=embedded_usdc,
        path=tmp_path_factory.mktemp("busy") / "claims.sqlite3",
    )
    yield opened
    assert opened.relayed() == 0
    opened.facilitator.close()


@pytest.fixture(scope="package")
def anvil() -> Iterator[AnvilWithContracts]:
    """Shared: leave it mining at once."""
    with anvil_with_contracts() as opened:
        yield opened


@pytest.fixture
def anvil_till(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[Till]:
    """On Anvil, with accounts of its own."""
    opened = Till(
        gateway=anvil.gateway,
        bank=anvil.stranger,
        domain=usdc_of(anvil),
        path=tmp_path / "claims.sqlite3",
    )
    yield opened
    opened.facilitator.close()


def usdc_of(anvil: AnvilWithContracts) -> TokenDomain:
    """The test token there."""
    token = anvil.token["asset"].rpartition(":")[2]
    return TokenDomain("Test USD Coin", "2", anvil.gateway.chain_id, token)
