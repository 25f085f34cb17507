"""Everything an embedded chain can be seen to hold, for comparing two."""

import itertools
from typing import Any

from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import BlockHeader
from engine.chain.sender import send
from tests.chain import bytecode

NOBODY = "0x" + "ab" * 20


def deploy_and_emit(chain: EmbeddedChain, events: int) -> str:
    """Create the contract of bytecode.py, let it emit, and return its address."""
    created = chain.receipt(send(chain, chain.faucet, to=None, data=bytecode.INIT))
    assert created is not None
    assert created.contract_address is not None
    for index in range(events):
        send(chain, chain.faucet, to=created.contract_address, data=bytecode.emit(b"%d" % index))
    return created.contract_address


def headers(chain: EmbeddedChain) -> list[BlockHeader]:
    """All blocks, from the genesis to the head."""
    blocks = [chain.block(number) for number in range(chain.head().number + 1)]
    return [block for block in blocks if block is not None]


def everything(chain: EmbeddedChain) -> dict[str, Any]:
    """All that the chain answers."""
    blocks = headers(chain)
    logs = chain.logs(from_block=0, to_block=len(blocks))
    by_address = {
        address: chain.logs(from_block=0, to_block=len(blocks), addresses=[address])
        for address in {log.address for log in logs}
    }
    return {
        "blocks": blocks,
        "logs": logs,
        "by address": by_address,
        "receipts": [chain.receipt(log.tx_hash) for log in logs],
        "balances": [chain.balance(address) for address in (NOBODY, chain.faucet.address)],
        "nonce": chain.transaction_count(chain.faucet.address),
        "code": [chain.code(address) for address in by_address],
    }


def is_linked(blocks: list[BlockHeader]) -> bool:
    """Whether each block is the child of the one before."""
    return all(
        child.parent_hash == parent.hash and child.number == parent.number + 1
        for parent, child in itertools.pairwise(blocks)
    )
