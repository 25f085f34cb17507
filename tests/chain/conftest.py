"""The three chains every gateway test runs on, and one funded account on each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.chain.anvil import AnvilProcess
from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import EmbeddedRpc
from engine.chain.gateway import ChainGateway, Receipt
from engine.chain.json_rpc import JsonRpcChain
from engine.chain.sender import send, wait
from tests.chain.bytecode import INIT

ANVIL_TOML = Path(__file__).parents[2] / "anvil.toml"


@dataclass
class ChainUnderTest:
    """A gateway, an account that has money on it, and a contract (see bytecode.py)."""

    gateway: ChainGateway
    rich: LocalAccount
    contract: str = ""

    def transact(self, *, to: str | None, data: bytes = b"", value: int = 0) -> Receipt:
        """Send from the rich account and wait until it is mined."""
        tx_hash = send(self.gateway, self.rich, to=to, data=data, value=value)
        return wait(self.gateway, tx_hash, timeout_s=20, poll_s=0.01)


@pytest.fixture(scope="package")
def anvil() -> Iterator[AnvilProcess]:
    """A real Anvil that begins anew and keeps nothing."""
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None) as process:
        yield process


@pytest.fixture(params=["embedded", "embedded over RPC", "anvil"])
def chain(request: pytest.FixtureRequest) -> Iterator[ChainUnderTest]:
    """Each kind of gateway in turn, with a fresh contract."""
    if request.param == "anvil":
        anvil: AnvilProcess = request.getfixturevalue("anvil")
        gateway = JsonRpcChain(anvil.url, expected_chain_id=anvil.config.chain_id)
        yield _with_contract(gateway, anvil.accounts()[0])
        gateway.close()
        return
    embedded = EmbeddedChain(None)
    if request.param == "embedded":
        yield _with_contract(embedded, embedded.faucet)
    else:
        with EmbeddedRpc(embedded, port=0) as rpc:
            gateway = JsonRpcChain(rpc.url, expected_chain_id=embedded.chain_id)
            yield _with_contract(gateway, embedded.faucet)
            gateway.close()
    embedded.close()


@pytest.fixture
def poor() -> LocalAccount:
    """An account that has nothing."""
    account: LocalAccount = Account.create()
    return account


def _with_contract(gateway: ChainGateway, rich: LocalAccount) -> ChainUnderTest:
    under_test = ChainUnderTest(gateway, rich)
    created = under_test.transact(to=None, data=INIT).contract_address
    assert created is not None
    under_test.contract = created
    return under_test
