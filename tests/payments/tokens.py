"""The tokens of Hostile.sol, compiled for these tests only."""

import functools
from pathlib import Path
from typing import Any

import solcx
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import Web3

from engine.chain import sender
from engine.chain.gateway import ChainGateway

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30


@functools.cache
def _compiled() -> dict[str, Any]:
    source = Path(__file__).with_name("Hostile.sol")
    output = solcx.compile_standard(
        {
            "language": "Solidity",
            "sources": {source.name: {"content": source.read_text()}},
            "settings": {
                "evmVersion": "prague",
                "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
            },
        },
        solc_binary=ROOT / "scripts" / "solc",
    )
    contracts: dict[str, Any] = output["contracts"][source.name]
    return contracts


def deployed(gateway: ChainGateway, account: LocalAccount, name: str, *arguments: Any) -> str:
    """Deploy one of the contracts; returns its address."""
    contract = _compiled()[name]
    code = Web3().eth.contract(abi=contract["abi"], bytecode=contract["evm"]["bytecode"]["object"])
    data = bytes.fromhex(str(code.constructor(*arguments).data_in_transaction)[2:])
    receipt = sender.wait(
        gateway,
        sender.send(gateway, account, to=None, data=data),
        timeout_s=PATIENCE_S,
        poll_s=0.01,
    )
    assert receipt.succeeded
    assert receipt.contract_address is not None
    return receipt.contract_address


def selector(function: str) -> bytes:
    """The first four bytes of a call."""
    return keccak(text=function)[:4]
