"""Put our contracts on a chain."""

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from engine.chain import contracts, sender
from engine.chain.account import Account
from engine.chain.gateway import ChainError, ChainGateway


@dataclass(frozen=True, slots=True)
class Deployed:
    """Where the contracts stand, and the block from which on they can have events."""

    registry: str
    anchors: str
    block_number: int


def deploy(
    gateway: ChainGateway,
    operator: Account,
    *,
    workspaces: Sequence[str] = (),
    timeout_s: float = 120,
) -> Deployed:
    """Deploy both registries; `operator` administers them and pays the gas.

    The first registration for each of `workspaces` then costs no more than the others.

    Raises:
        ChainError: a transaction was refused or reverted, or is not mined in time.
    """
    anchors = create(gateway, operator, contracts.ANCHOR_REGISTRY, timeout_s=timeout_s)
    block_number = gateway.head().number
    registry = create(
        gateway,
        operator,
        contracts.SESSION_REGISTRY,
        to_checksum_address(operator.address),
        to_checksum_address(anchors),
        timeout_s=timeout_s,
    )
    for workspace in workspaces:
        data = contracts.call_data(
            contracts.SESSION_REGISTRY, "openWorkspace", keccak(text=workspace)
        )
        tx_hash = sender.send(gateway, operator, to=registry, data=data)
        if not sender.wait(gateway, tx_hash, timeout_s=timeout_s, poll_s=0.05).succeeded:
            raise ChainError(f"opening {workspace!r} reverted in transaction 0x{tx_hash.hex()}")
    return Deployed(registry, anchors, block_number)


def create(
    gateway: ChainGateway,
    account: Account,
    name: str,
    *arguments: str,
    timeout_s: float = 120,
) -> str:
    """Deploy one contract and return its address."""
    code = contracts.creation_code(name, *arguments)
    tx_hash = sender.send(gateway, account, to=None, data=code)
    receipt = sender.wait(gateway, tx_hash, timeout_s=timeout_s, poll_s=0.05)
    if not receipt.succeeded or receipt.contract_address is None:
        raise ChainError(f"the deployment of {name} reverted in transaction 0x{tx_hash.hex()}")
    return receipt.contract_address
