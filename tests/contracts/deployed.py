"""Both registries on an embedded chain, at addresses and with keys that are always the same."""

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from engine.chain import contracts, sender
from engine.chain.deploy import deploy
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import Receipt
from engine.grant import Domain, Grant
from engine.policy.limits import Limits

REGISTRY, ANCHORS = contracts.SESSION_REGISTRY, contracts.ANCHOR_REGISTRY
UNTIL_S = 2**32 - 1
"""The latest end that the registry takes: no test is ever too late."""


class Contracts:
    """See the module."""

    def __init__(self) -> None:
        self.chain = EmbeddedChain(None)
        self.operator, self.owner, self.stranger = (
            Account.from_key(bytes([n]) * 32) for n in (1, 2, 3)
        )
        for account in (self.operator, self.owner, self.stranger):
            self.chain.fund(account.address.lower(), 10**20)
        self.addresses = deploy(self.chain, self.operator)
        self.domain = Domain(self.chain.chain_id, self.addresses.registry)

    def send(
        self, function: str, *args: Any, by: LocalAccount | None = None, name: str = REGISTRY
    ) -> Receipt:
        """A transaction, mined; by the operator unless said otherwise."""
        data = contracts.call_data(name, function, *args)
        tx_hash = sender.send(self.chain, by or self.operator, to=self._address(name), data=data)
        receipt = self.chain.receipt(tx_hash)
        assert receipt is not None
        assert receipt.succeeded
        return receipt

    def read(self, function: str, *args: Any, name: str = REGISTRY) -> Any:
        """The answer of a view."""
        return contracts.read(self.chain, name, self._address(name), function, *args)

    def grant(self, number: int, **changes: Any) -> Grant:
        """A typical grant, for the session key with this number."""
        fields: dict[str, Any] = {
            "owner": self.owner.address.lower(),
            "session_key": session_key(number).public_key.to_address(),
            "audit_log": keccak(b"log"),
            "parent": bytes(32),
            "workspace": "acme",
            "agent_id": "research-agent-0001",
            "permissions": ("payment",),
            "merchants": ("api.example-merchant.com", "https://weather.example.io"),
            "tokens": ("eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",),
            "chains": ("eip155:8453",),
            "limits": Limits(1000 * 10**6, 5000 * 10**6, 20000 * 10**6, None, 500 * 10**6),
            "conditions": ("at most 10 payments per hour",),
            "valid_from_s": 1_700_000_000,
            "valid_until_s": UNTIL_S,
            "salt": keccak(b"salt"),
        }
        return Grant(**fields | changes)

    def signature(self, grant: Grant) -> bytes:
        """The owner's consent."""
        return bytes(
            self.owner.sign_typed_data(full_message=grant.typed_data(self.domain)).signature
        )

    def registration(
        self,
        grant: Grant,
        number: int,
        *,
        consent: str = "eip712",
        signature: bytes | None = None,
        store: bool = False,
    ) -> tuple[Any, ...]:
        """The ABI's `Registration`, signed by the owner unless another signature is given."""
        point = session_key(number).public_key.to_bytes()
        if signature is None:
            signature = self.signature(grant)
        kind = contracts.CONSENT.index(consent)
        return (grant.abi_tuple(), point[:32], point[32:], store, kind, signature)

    def digest(self, function: str, *args: Any) -> bytes:
        """An EIP-712 digest, as the registry makes it."""
        found: bytes = self.read(function, *args)
        return found

    def _address(self, name: str) -> str:
        return self.addresses.registry if name == REGISTRY else self.addresses.anchors


def session_key(number: int) -> PrivateKey:
    """The private key with this number."""
    return PrivateKey((10**6 + number).to_bytes(32))


def token_id(number: int) -> int:
    """The session's, whose key has this number."""
    return int.from_bytes(keccak(session_key(number).public_key.to_bytes()))


def ref(grant: Grant, number: int) -> tuple[int, str, bytes]:
    """The ABI's `SessionRef`."""
    return token_id(number), to_checksum_address(grant.owner), grant.hash()


def assertion(x: int, y: int, parts: Sequence[Any]) -> bytes:
    """The form in which the registry takes a passkey's signature."""
    types = ["bytes32", "bytes32", "uint256", "uint256", "bytes", "string"]
    return x.to_bytes(32) + y.to_bytes(32) + encode(types, parts)
