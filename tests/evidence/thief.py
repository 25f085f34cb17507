"""Who has the data directory and with it every session's key."""

import sqlalchemy as sa
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from engine.chain import contracts, sender
from engine.db.tables import SessionKey, table
from engine.sessions.session import SessionView
from engine.sessions.vault import Vault
from tests.world import World

USDC = contracts.TEST_USDC
SHOP = "0x" + "5a" * 20
NONCE = b"\x07" * 32
AUTHORIZATION = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


class Thief:
    """Opens the vault and signs with a session's key, past the ledger."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gateway = world.engine.gateway
        request = world.request(1)
        self.usdc = request.token.rpartition(":")[2]
        self.stranger: LocalAccount = Account.create()
        self.gateway.fund(self.stranger.address.lower(), 10**18)  # type: ignore[attr-defined]

    def key_of(self, view: SessionView) -> LocalAccount:
        keys = table(SessionKey)
        query = sa.select(keys.c.sealed).where(keys.c.session_id == view.id)
        with self.world.engine.database.reading() as connection:
            sealed = connection.execute(query).scalar_one()
        vault = Vault.from_file(self.world.settings.data_dir / "kek")
        key: LocalAccount = Account.from_key(vault.open(sealed, view.id))
        assert key.address.lower() == view.grant.session_key
        return key

    def send(self, account: LocalAccount, function: str, *arguments: object) -> str:
        data = contracts.call_data(USDC, function, *arguments)
        tx_hash = sender.send(self.gateway, account, to=self.usdc, data=data)
        receipt = self.gateway.receipt(tx_hash)
        assert receipt is not None
        assert receipt.succeeded
        return "0x" + tx_hash.hex()

    def mint(self, to: str, amount: int) -> None:
        self.send(self.stranger, "mint", to_checksum_address(to), amount)

    def balance(self, address: str) -> int:
        answer: int = contracts.read(
            self.gateway, USDC, self.usdc, "balanceOf", to_checksum_address(address)
        )
        return answer

    def authorize(self, key: LocalAccount, amount: int) -> str:
        """The key signs an EIP-3009 payment; a stranger takes it to the chain."""
        now_s = self.gateway.head().timestamp_s
        message = {
            "from": key.address,
            "to": to_checksum_address(SHOP),
            "value": amount,
            "validAfter": 0,
            "validBefore": now_s + 10_000,
            "nonce": NONCE,
        }
        domain = {
            "name": "Test USD Coin",
            "version": "2",
            "chainId": self.gateway.chain_id,
            "verifyingContract": to_checksum_address(self.usdc),
        }
        signed = key.sign_typed_data(domain, AUTHORIZATION, message)
        parts = (signed.v, signed.r.to_bytes(32), signed.s.to_bytes(32))
        return self.send(self.stranger, "transferWithAuthorization", *message.values(), *parts)


def imitate(thief: Thief, key: str) -> tuple[str, str]:
    """A stranger's contract says that it moved 1 from the key: its address, the transaction."""
    topics = (contracts.ERC20_TRANSFER, bytes(12) + bytes.fromhex(key[2:]), b"\x5a" * 32)
    pushed = b"".join(b"\x7f" + topic for topic in reversed(topics))
    # PUSH1 1 PUSH1 0 MSTORE, the topics, PUSH1 32 PUSH1 0 LOG3 STOP
    code = bytes.fromhex("6001600052") + pushed + bytes.fromhex("60206000a300")
    tx_hash = sender.send(thief.gateway, thief.stranger, to=None, data=code)
    receipt = thief.gateway.receipt(tx_hash)
    assert receipt is not None
    assert receipt.contract_address is not None
    return receipt.contract_address, "0x" + tx_hash.hex()
