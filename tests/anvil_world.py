"""Installations on a real Anvil, and the levers with which Anvil rewrites its history."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from engine.chain import contracts, sender
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import create, deploy
from engine.chain.gateway import Receipt
from engine.chain.json_rpc import JsonRpcChain
from engine.chain.sender import SignedTransaction
from tests.world import World

PATIENCE_S = 30

ANVIL_TOML = Path(__file__).parents[1] / "anvil.toml"


class AnvilWithContracts:
    """An Anvil of one's own on which the contracts and the test token stand."""

    def __init__(self, process: AnvilProcess) -> None:
        self.process = process
        self.gateway = JsonRpcChain(process.url)
        self.operator, self.owner, self.stranger = process.accounts()[:3]
        self.deployed = deploy(self.gateway, self.operator)
        usdc = create(self.gateway, self.operator, contracts.TEST_USDC)
        self.token = {
            "symbol": "USDC",
            "asset": f"eip155:{self.gateway.chain_id}/erc20:{usdc}",
            "decimals": 6,
            "usd_price": "1",
        }

    @property
    def settings(self) -> dict[str, Any]:
        """How an installation is told of this chain."""
        return {
            "chain": self.process.url,
            "registry": self.deployed.registry,
            "operator_key": "0x" + bytes(self.operator.key).hex(),
            "tokens": (self.token,),
        }

    def rpc(self, method: str, *parameters: Any) -> Any:
        """Ask Anvil something that only a test asks."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        # Without `verify` no certificates are loaded, which takes longer than the rest.
        answer = httpx.post(self.process.url, json=request, trust_env=False, verify=False).json()
        assert "error" not in answer, answer
        return answer["result"]

    def sign(
        self, account: LocalAccount, to: str | None, data: bytes, nonce: int | None = None
    ) -> SignedTransaction:
        """A transaction that is not sent."""
        return sender.sign(self.gateway, account, to=to, data=data, nonce=nonce)

    def transact(self, account: LocalAccount, *, to: str | None, data: bytes = b"") -> Receipt:
        """Send and wait until it is mined."""
        tx_hash = sender.send(self.gateway, account, to=to, data=data)
        receipt = sender.wait(self.gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.005)
        assert receipt.succeeded
        return receipt

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.rpc("anvil_mine", hex(blocks))

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Mine no transaction until the end; then all that wait, in one block."""
        self.rpc("evm_setAutomine", False)
        try:
            yield
        finally:
            self.mine()
            self.rpc("evm_setAutomine", True)

    @contextmanager
    def world(self, directory: Path, **changes: Any) -> Iterator[World]:
        """An installation on this chain, whose owner has ether."""
        opened = World(directory, **self.settings, **changes)
        opened.owner = self.owner
        try:
            yield opened
        finally:
            opened.engine.close()


@contextmanager
def anvil_with_contracts() -> Iterator[AnvilWithContracts]:
    """Start an Anvil, deploy, and stop it in the end."""
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None) as process:
        opened = AnvilWithContracts(process)
        yield opened
        opened.gateway.close()


def tick_until(world: World, holds: Callable[[], bool]) -> None:
    """Tick until something holds: Anvil mines a little after it has taken a transaction."""
    _wait(holds, world.engine.tick)


def wait_until(holds: Callable[[], bool]) -> None:
    """The same without a tick."""
    _wait(holds, lambda: None)


def _wait(holds: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.005)
