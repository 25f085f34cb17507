"""A transfer of tokens that its payer signs and anybody may submit (EIP-3009).

The one message that a session's key ever signs: `TransferWithAuthorization`, in the domain that the
token contract itself tells (EIP-712), never in one that a 402 answer names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

UINT256_MAX = 2**256 - 1

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NONCE = re.compile(r"0x[0-9a-fA-F]{64}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,77}")
_TYPES = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ],
}


@dataclass(frozen=True, slots=True)
class TokenDomain:
    """Where a signature is valid: one token contract on one chain."""

    name: str
    version: str
    chain_id: int
    token: str


@dataclass(frozen=True)
class Authorization:
    """Who pays whom how much of a token. Addresses are lower-case; times are Unix seconds.

    It can be used while `valid_after_s` < block time < `valid_before_s`, once per payer and nonce.
    """

    payer: str
    pay_to: str
    amount: int
    valid_after_s: int
    valid_before_s: int
    nonce: bytes

    def typed_data(self, domain: TokenDomain) -> dict[str, Any]:
        """What `eth_signTypedData_v4` takes (EIP-712)."""
        return {
            "types": _TYPES,
            "primaryType": "TransferWithAuthorization",
            "domain": {
                "name": domain.name,
                "version": domain.version,
                "chainId": domain.chain_id,
                "verifyingContract": domain.token,
            },
            "message": {
                "from": self.payer,
                "to": self.pay_to,
                "value": self.amount,
                "validAfter": self.valid_after_s,
                "validBefore": self.valid_before_s,
                "nonce": self.nonce,
            },
        }

    def sign(self, domain: TokenDomain, private_key: bytes) -> bytes:
        """65 bytes r ‖ s ‖ v; the same every time (RFC 6979)."""
        from eth_account import Account

        signed = Account.sign_typed_data(private_key, full_message=self.typed_data(domain))
        return bytes(signed.signature)

    def settling(self, signature: bytes) -> bytes:
        """The call of the token that settles it: `transferWithAuthorization` (EIP-3009).

        Anybody may send it; `signature` has 65 bytes r ‖ s ‖ v.
        """
        from eth_abi.abi import encode
        from eth_utils.crypto import keccak

        assert len(signature) == 65
        r, s, v = signature[:32], signature[32:64], signature[64]
        types = ["address", "address", *["uint256"] * 3, "bytes32", "uint8", "bytes32", "bytes32"]
        times = self.valid_after_s, self.valid_before_s
        values = (self.payer, self.pay_to, self.amount, *times, self.nonce, v, r, s)
        selector = keccak(text=f"transferWithAuthorization({','.join(types)})")[:4]
        return selector + encode(types, values)

    @cached_property
    def wire(self) -> dict[str, str]:
        """As x402's `exact` scheme sends it beside the signature."""
        return {
            "from": self.payer,
            "to": self.pay_to,
            "value": str(self.amount),
            "validAfter": str(self.valid_after_s),
            "validBefore": str(self.valid_before_s),
            "nonce": "0x" + self.nonce.hex(),
        }


def read_authorization(sent: object) -> Authorization:
    """Read what somebody sent as `wire`, in its one spelling: only the case of hex digits is free.

    Raises:
        ValueError: naming the field that is missing or spelt otherwise.
    """
    if not isinstance(sent, Mapping):
        raise ValueError("authorization: takes an object")  # noqa: TRY004 (it is what was sent)
    return Authorization(
        payer=_field(sent, "from", _ADDRESS, "an address: 0x and 40 hex digits").lower(),
        pay_to=_field(sent, "to", _ADDRESS, "an address: 0x and 40 hex digits").lower(),
        amount=_uint256(sent, "value"),
        valid_after_s=_uint256(sent, "validAfter"),
        valid_before_s=_uint256(sent, "validBefore"),
        nonce=bytes.fromhex(_field(sent, "nonce", _NONCE, "0x and 64 hex digits")[2:]),
    )


def _field(sent: Mapping[str, Any], name: str, form: re.Pattern[str], takes: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"authorization.{name}: takes {takes}")
    return value


def _uint256(sent: Mapping[str, Any], name: str) -> int:
    takes = "a number below 2^256 in decimal digits, as text"
    value = int(_field(sent, name, _DECIMAL, takes))
    if value > UINT256_MAX:
        raise ValueError(f"authorization.{name}: takes {takes}")
    return value
