"""Code written for Lit Protocol's PKP contract reads our registry by Lit's own ABI.

The entries are those of `PKPNFT` in the ABI that npm's @lit-protocol/contracts 0.9.1 publishes, the
same for its networks datil and naga.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_tester.exceptions import TransactionFailed
from eth_utils.crypto import keccak
from web3 import EthereumTesterProvider, Web3

from tests.contracts.deployed import Contracts, session_key, token_id


def view(name: str, output: str) -> dict[str, Any]:
    """A function of Lit's that takes a token id."""
    return {
        "inputs": [{"internalType": "uint256", "name": "tokenId", "type": "uint256"}],
        "name": name,
        "outputs": [{"internalType": output, "name": "", "type": output}],
        "stateMutability": "view",
        "type": "function",
    }


LIT_ABI = [
    view("exists", "bool"),
    view("getEthAddress", "address"),
    view("getPubkey", "bytes"),
    {
        "anonymous": False,
        "inputs": [
            {"indexed": True, "internalType": "uint256", "name": "tokenId", "type": "uint256"},
            {"indexed": False, "internalType": "bytes", "name": "pubkey", "type": "bytes"},
        ],
        "name": "PKPMinted",
        "type": "event",
    },
]
STORED, NOT_STORED, UNKNOWN = 1, 2, 3


@pytest.fixture(scope="module")
def deployed() -> Iterator[Contracts]:
    """A session whose public key is stored, and one whose is not."""
    contracts = Contracts()
    items = [
        contracts.registration(contracts.grant(number), number, store=number == STORED)
        for number in (STORED, NOT_STORED)
    ]
    contracts.send("register", items)
    yield contracts
    contracts.chain.close()


@pytest.fixture(scope="module")
def pkp(deployed: Contracts) -> Any:
    """The registry, as somebody sees it who knows only Lit's ABI."""
    web3 = Web3(EthereumTesterProvider(deployed.chain.tester))
    address = Web3.to_checksum_address(deployed.addresses.registry)
    return web3.eth.contract(address=address, abi=LIT_ABI)


def public_key(number: int) -> bytes:
    return b"\x04" + session_key(number).public_key.to_bytes()


@pytest.mark.parametrize(
    ("number", "exists"), [(STORED, True), (NOT_STORED, True), (UNKNOWN, False)]
)
def test_exists(pkp: Any, number: int, exists: bool) -> None:
    assert pkp.functions.exists(token_id(number)).call() is exists


@pytest.mark.parametrize("number", [STORED, NOT_STORED])
def test_the_address_is_the_session_keys(pkp: Any, number: int) -> None:
    account = Account.from_key(session_key(number).to_bytes())
    assert pkp.functions.getEthAddress(token_id(number)).call() == account.address


def test_the_public_key_where_it_was_stored(pkp: Any) -> None:
    assert pkp.functions.getPubkey(token_id(STORED)).call() == public_key(STORED)


@pytest.mark.parametrize(
    ("function", "number", "error"),
    [
        ("getPubkey", NOT_STORED, "PublicKeyNotStored(uint256)"),
        ("getPubkey", UNKNOWN, "SessionUnknown(uint256)"),
        ("getEthAddress", UNKNOWN, "SessionUnknown(uint256)"),
    ],
)
def test_what_is_not_there_is_refused(pkp: Any, function: str, number: int, error: str) -> None:
    reason = keccak(text=error)[:4] + token_id(number).to_bytes(32)
    with pytest.raises(TransactionFailed, match=re.escape(repr(reason))):
        pkp.functions[function](token_id(number)).call()


def test_every_key_was_minted_with_its_event(pkp: Any) -> None:
    minted = {
        log["args"]["tokenId"]: log["args"]["pubkey"]
        for log in pkp.events.PKPMinted().get_logs(from_block=0)
    }
    assert minted == {token_id(n): public_key(n) for n in (STORED, NOT_STORED)}


@pytest.mark.parametrize("number", [STORED, UNKNOWN])
def test_the_token_id_is_of_the_public_key_alone(deployed: Contracts, number: int) -> None:
    assert deployed.read("tokenId", public_key(number)) == token_id(number)
