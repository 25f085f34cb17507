"""The grant: what an owner signs, what the chain records and what the engine enforces.

All three are this one object. A wallet shows it as EIP-712 typed data; `SessionRegistry` hashes the
same struct, of which it is given the name of the workspace and the scope as hashes; the policy of a
session is built from nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from engine.policy.conditions import parse_conditions
from engine.policy.decision import Policy
from engine.policy.limits import Limits, lowest
from engine.policy.money import AMOUNT_MAX_MICRO_USD

UNLIMITED = 2**64 - 1
ZERO_ADDRESS = "0x" + "00" * 20
NO_PARENT = bytes(32)
_ADDRESS = re.compile("0x[0-9a-f]{40}")
_BYTES32 = re.compile("0x[0-9a-f]{64}")

_LIMITS = (
    ("per_transaction", "perTransactionMicroUsd"),
    ("per_day", "perDayMicroUsd"),
    ("per_week", "perWeekMicroUsd"),
    ("per_month", "perMonthMicroUsd"),
    ("approval_above", "approvalAboveMicroUsd"),
)
_Types = dict[str, list[dict[str, str]]]
_GRANT_TYPES: _Types = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "Scope": [
        {"name": "agentId", "type": "string"},
        {"name": "permissions", "type": "string[]"},
        {"name": "merchants", "type": "string[]"},
        {"name": "tokens", "type": "string[]"},
        {"name": "chains", "type": "string[]"},
        {"name": "conditions", "type": "string[]"},
    ],
    "Limits": [{"name": name, "type": "uint64"} for _, name in _LIMITS],
    "Grant": [
        {"name": "owner", "type": "address"},
        {"name": "sessionKey", "type": "address"},
        {"name": "workspace", "type": "string"},
        {"name": "limits", "type": "Limits"},
        {"name": "scope", "type": "Scope"},
        {"name": "validFrom", "type": "uint64"},
        {"name": "validUntil", "type": "uint64"},
        {"name": "auditLog", "type": "bytes32"},
        {"name": "parent", "type": "bytes32"},
        {"name": "salt", "type": "bytes32"},
    ],
}


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a grant is valid: the chain and the registry contract (EIP-712 `EIP712Domain`)."""

    chain_id: int
    registry: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The parameters of a session. Addresses are lower-case; an empty list means any.

    `parent` is the hash of the grant of the session that delegates, or `NO_PARENT`; `conditions`
    are the sentences of `engine.policy.conditions`, in the one form of their list.
    """

    owner: str
    session_key: str
    audit_log: bytes
    parent: bytes
    workspace: str
    agent_id: str
    permissions: tuple[str, ...]
    merchants: tuple[str, ...]
    tokens: tuple[str, ...]
    chains: tuple[str, ...]
    limits: Limits
    conditions: tuple[str, ...]
    valid_from_s: int
    valid_until_s: int
    salt: bytes

    def message(self) -> dict[str, Any]:
        """The EIP-712 message; an absent limit is 2^64-1."""
        return {
            "owner": self.owner,
            "sessionKey": self.session_key,
            "workspace": self.workspace,
            "limits": limits_for_chain(self.limits),
            "scope": {
                "agentId": self.agent_id,
                "permissions": list(self.permissions),
                "merchants": list(self.merchants),
                "tokens": list(self.tokens),
                "chains": list(self.chains),
                "conditions": list(self.conditions),
            },
            "validFrom": self.valid_from_s,
            "validUntil": self.valid_until_s,
            "auditLog": "0x" + self.audit_log.hex(),
            "parent": "0x" + self.parent.hex(),
            "salt": "0x" + self.salt.hex(),
        }

    def abi_tuple(self) -> tuple[Any, ...]:
        """The form in which the ABI takes the contracts' struct `Grant`.

        Workspace and scope are in it as hashes, as EIP-712's encodeData has them.
        """
        from eth_utils.address import to_checksum_address
        from eth_utils.crypto import keccak

        message = self.message()
        message["owner"] = to_checksum_address(self.owner)
        message["sessionKey"] = to_checksum_address(self.session_key)
        message["workspace"] = keccak(text=self.workspace)
        message["limits"] = tuple(message["limits"].values())
        message["scope"] = _struct_hash("Scope", message["scope"])
        message |= {"auditLog": self.audit_log, "parent": self.parent, "salt": self.salt}
        return tuple(message.values())

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        """What `eth_signTypedData_v4` takes (EIP-712)."""
        return _typed_data("Grant", _GRANT_TYPES, self.message(), domain)

    def hash(self) -> bytes:
        """The EIP-712 struct hash: the identity of these parameters, on any chain."""
        return _struct_hash("Grant", self.message())

    def digest(self, domain: Domain) -> bytes:
        """What a wallet or a passkey signs: the EIP-712 digest, on one chain and registry."""
        from eth_account.messages import encode_typed_data
        from eth_utils.crypto import keccak

        message = encode_typed_data(full_message=self.typed_data(domain))
        return keccak(b"\x19" + message.version + message.header + message.body)

    def signer(self, signature: bytes, domain: Domain) -> str:
        """The lower-case address whose 65-byte, low-s signature over this grant it is (EIP-712).

        Raises:
            ValueError: the signature is malformed or recovers to nobody.
        """
        from eth_account import Account
        from eth_account.messages import encode_typed_data

        if len(signature) != 65 or signature[64] not in (27, 28):
            raise ValueError("a signature is 65 bytes r ‖ s ‖ v with v 27 or 28")
        if int.from_bytes(signature[32:64]) > _HALF_ORDER:
            raise ValueError("the signature's s is in the upper half of the curve order")
        try:
            message = encode_typed_data(full_message=self.typed_data(domain))
            return str(Account.recover_message(message, signature=signature)).lower()
        except Exception as error:
            raise ValueError("the signature is nobody's") from error

    def to_json(self) -> dict[str, Any]:
        """The form kept in the database, in records and in evidence; an absent limit is null."""
        return {
            "owner": self.owner,
            "session_key": self.session_key,
            "audit_log": "0x" + self.audit_log.hex(),
            "parent": "0x" + self.parent.hex(),
            "workspace": self.workspace,
            "agent_id": self.agent_id,
            "permissions": list(self.permissions),
            "merchants": list(self.merchants),
            "tokens": list(self.tokens),
            "chains": list(self.chains),
            "limits_micro_usd": self.limits.to_json(),
            "conditions": list(self.conditions),
            "valid_from_s": self.valid_from_s,
            "valid_until_s": self.valid_until_s,
            "salt": "0x" + self.salt.hex(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Grant":
        """The inverse of `to_json`; anything that is not exactly its output is refused.

        Raises:
            ValueError: naming what is wrong.
        """
        return cls.with_policy(data)[0]

    @classmethod
    def with_policy(cls, data: Mapping[str, Any]) -> "tuple[Grant, Policy]":
        """`from_json`, and the policy that enforces the grant alone, which that makes anyway.

        Raises:
            ValueError: naming what is wrong.
        """
        try:
            _check_form(data)
            grant = cls(
                owner=data["owner"],
                session_key=data["session_key"],
                audit_log=bytes.fromhex(data["audit_log"][2:]),
                parent=bytes.fromhex(data["parent"][2:]),
                workspace=data["workspace"],
                agent_id=data["agent_id"],
                permissions=tuple(data["permissions"]),
                merchants=tuple(data["merchants"]),
                tokens=tuple(data["tokens"]),
                chains=tuple(data["chains"]),
                limits=Limits(**data["limits_micro_usd"]),
                conditions=tuple(data["conditions"]),
                valid_from_s=data["valid_from_s"],
                valid_until_s=data["valid_until_s"],
                salt=bytes.fromhex(data["salt"][2:]),
            )
            regular = grant.to_json() == data
            policy = grant.policy()
        except (KeyError, TypeError, AttributeError, UnicodeError, AssertionError) as error:
            raise ValueError("not a grant: a field is missing or malformed") from error
        except ValueError as error:
            raise ValueError(f"not a grant: {error}") from error
        if not regular:
            raise ValueError("not a grant: unknown or irregular fields")
        return grant, policy

    def policy(
        self,
        restrictions: Sequence[str] = (),
        lowered: Iterable[Limits] = (),
        above: Iterable[Sequence[str]] = (),
    ) -> Policy:
        """The policy that enforces this grant and, beside it, an operator's restrictions.

        Of each limit the smallest is in force, the grant's or one that was `lowered` on the chain.
        `above` are the restrictions of each session above it that has some.

        Raises:
            ConditionError: naming the first of `conditions` or `restrictions` that is none.
        """
        return Policy(
            limits=lowest(self.limits, *lowered),
            permissions=frozenset(self.permissions) or None,
            merchants=frozenset(self.merchants) or None,
            tokens=frozenset(self.tokens) or None,
            chains=frozenset(self.chains) or None,
            valid_from_ms=self.valid_from_s * 1000,
            valid_until_ms=self.valid_until_s * 1000,
            conditions=parse_conditions(self.conditions),
            restrictions=parse_conditions(restrictions, "restrictions"),
            above=tuple(parse_conditions(each, "restrictions") for each in above),
        )


def limits_for_chain(limits: Limits) -> dict[str, int]:
    """Limits as the contracts' struct `Limits` and the EIP-712 message have them."""
    return {
        name: UNLIMITED if (value := getattr(limits, field)) is None else value
        for field, name in _LIMITS
    }


def limits_from_chain(told: Mapping[str, Any]) -> Limits:
    """The inverse of `limits_for_chain`; a limit that no payment can reach is the highest of ours.

    Raises:
        KeyError, ValueError: it is not that struct, of integers or of their decimal digits.
    """
    values = {field: int(told[name]) for field, name in _LIMITS}
    return Limits(
        **{
            field: None if value == UNLIMITED else min(value, AMOUNT_MAX_MICRO_USD)
            for field, value in values.items()
        }
    )


def _struct_hash(struct: str, message: Mapping[str, Any]) -> bytes:
    """hashStruct of EIP-712, for the types that a grant has.

    It is written out here because eth-account, which takes a hundred times as long, is asked
    whenever a wallet's signature is; that both say the same is tested.
    """
    words = [_struct_type(struct)]
    for member in _GRANT_TYPES[struct]:
        kind, value = member["type"], message[member["name"]]
        if kind == "string":
            words.append(_keccak(value.encode()))
        elif kind == "string[]":
            words.append(_keccak(b"".join([_keccak(each.encode()) for each in value])))
        elif kind == "uint64":
            words.append(value.to_bytes(32))
        elif kind in ("address", "bytes32"):
            words.append(bytes.fromhex(value[2:]).rjust(32, b"\0"))
        else:
            words.append(_struct_hash(kind, value))
    return _keccak(b"".join(words))


@cache
def _struct_type(struct: str) -> bytes:
    """typeHash of EIP-712: of a struct and, sorted by name, those that its members are."""
    within = sorted({each["type"] for each in _GRANT_TYPES[struct]} & _GRANT_TYPES.keys())
    described = []
    for name in (struct, *within):
        members = ",".join(f"{each['type']} {each['name']}" for each in _GRANT_TYPES[name])
        described.append(f"{name}({members})")
    return _keccak("".join(described).encode())


@lru_cache(4096)
def _keccak(data: bytes) -> bytes:
    """Keccak-256; much of what grants are made of is in many of them."""
    from eth_utils.crypto import keccak

    return bytes(keccak(data))


def _typed_data(
    struct: str, types: _Types, message: dict[str, Any], domain: Domain
) -> dict[str, Any]:
    return {
        "types": types,
        "primaryType": struct,
        "domain": {
            "name": "Tallystick",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.registry,
        },
        "message": message,
    }


def _check_form(data: Mapping[str, Any]) -> None:
    """Refuse what Python would take for equal (True is 1) or what EIP-712 could not encode."""
    for pattern, names in (
        (_ADDRESS, ("owner", "session_key")),
        (_BYTES32, ("audit_log", "parent", "salt")),
    ):
        for name in names:
            if pattern.fullmatch(data[name]) is None:
                raise ValueError(f"{name} is not lower-case hexadecimal of its length")
    for name in ("valid_from_s", "valid_until_s"):
        if type(data[name]) is not int or not 0 <= data[name] <= UNLIMITED:
            raise ValueError(f"{name} is not a time in seconds")
    texts = [data["workspace"], data["agent_id"]]
    for name in ("permissions", "merchants", "tokens", "chains", "conditions"):
        texts += data[name]
    "".join(texts).encode()


_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
