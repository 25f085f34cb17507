"""A wallet that is a contract (ERC-1271), in a hundred bytes of hand-written code.

It takes a signature r ‖ s ‖ v of one key for its own, until somebody freezes it by calling it with
anything else than that question. `contracts/test/Wallets.sol` has the same in Solidity.
"""

from eth_account.signers.local import LocalAccount

from engine.chain import sender
from engine.chain.gateway import ChainGateway

_MAGIC = "1626ba7e"
_IS_QUESTION = f"5f3560e01c63{_MAGIC}14"  # the selector of the calldata
_FREEZE = "60015f5500"
_RECOVER = (
    "5b600435" + "5f52"  # digest
    "60a43560f81c" + "602052"  # v
    "606435" + "604052"  # r
    "608435" + "606052"  # s
    "60206080" + "60805f" + "60015afa50"  # ecrecover's answer to 0x80
)
_ANSWER = f"145f54151663{_MAGIC}60e01b025f5260205ff3"  # the key's, and nobody froze it: the magic


def creation_code(signer: str) -> bytes:
    """The code that deploys the wallet of the key with this address."""
    question = f"{_IS_QUESTION}60{len(_IS_QUESTION + _FREEZE) // 2 + 3:02x}57"
    judged = f"{_RECOVER}60805173{signer.removeprefix('0x')}{_ANSWER}"
    runtime = bytes.fromhex(question + _FREEZE + judged)
    return bytes.fromhex(f"60{len(runtime):02x}8060095f395ff3") + runtime


def deploy_wallet(gateway: ChainGateway, payer: LocalAccount, signer: str) -> str:
    """Its address."""
    tx_hash = sender.send(gateway, payer, to=None, data=creation_code(signer.lower()))
    receipt = sender.wait(gateway, tx_hash)
    assert receipt.succeeded
    assert receipt.contract_address is not None
    return receipt.contract_address


def freeze(gateway: ChainGateway, payer: LocalAccount, wallet: str) -> None:
    """From now on it takes no signature."""
    assert sender.wait(gateway, sender.send(gateway, payer, to=wallet, data=b"\0\0\0\0")).succeeded
