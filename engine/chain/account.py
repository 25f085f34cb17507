"""Accounts that pay for transactions."""

from typing import Any, Protocol

from eth_keys.datatypes import PrivateKey
from eth_utils.exceptions import ValidationError


class Account(Protocol):
    """Who signs transactions: ours below, or any account of eth-account."""

    @property
    def address(self) -> str:
        """Its address, with its checksum (EIP-55)."""

    def sign_transaction(self, transaction_dict: Any) -> Any:
        """As eth-account's `LocalAccount.sign_transaction`."""


class KeyAccount:
    """The account of a private key. It signs with eth-account, which is slow to import: so that is
    done when something is to be signed, and not by a server that only starts.

    Raises:
        ValueError: the key is not a private key of 32 bytes.
    """

    __slots__ = ("address", "key")

    def __init__(self, key: bytes) -> None:
        try:
            self.address = str(PrivateKey(key).public_key.to_checksum_address())
        except ValidationError as error:
            raise ValueError("a private key has 32 bytes") from error
        self.key = key

    def sign_transaction(self, transaction_dict: Any) -> Any:
        """See `Account`."""
        from eth_account import Account as Signer

        return Signer.sign_transaction(transaction_dict, self.key)
