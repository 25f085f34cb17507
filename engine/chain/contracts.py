"""Our contracts as the engine sees them: call data out, events and answers in.

The ABI and bytecode come from `contracts/artifacts`, which the compiler wrote; users need none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import decode
from eth_abi.codec import ABIEncoder
from eth_abi.decoding import BytesDecoder
from eth_abi.encoding import BytesEncoder
from eth_abi.exceptions import DecodingError
from eth_abi.registry import ABIRegistry, BaseEquals
from eth_abi.registry import registry as standard_types
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from engine.chain.gateway import CallReverted, ChainGateway, ChainUnavailable, Log
from engine.grant import Grant, limits_for_chain
from engine.policy.limits import Limits

_ARTIFACTS = Path(__file__).parents[2] / "contracts" / "artifacts"

SESSION_REGISTRY = "SessionRegistry"
ANCHOR_REGISTRY = "AnchorRegistry"
TEST_USDC = "TestUSDC"

CONSENT = ("none", "eip712", "erc1271", "passkey")
"""The registry's `Consent` enum, in order."""

ERC20_TRANSFER: bytes = keccak(text="Transfer(address,address,uint256)")
"""Topic 0 of a transfer (ERC-20)."""
AUTHORIZATION_USED: bytes = keccak(text="AuthorizationUsed(address,bytes32)")
"""Topic 0 of a used payment authorization (EIP-3009)."""
_IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")
"""Selector of `isValidSignature(bytes32,bytes)`, and what it answers for yes (ERC-1271)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded event and where it stands."""

    name: str
    args: dict[str, Any]
    log: Log


class _WholeBytes(BytesEncoder):
    """A `bytes32` is 32 bytes: eth-abi would fill up what is shorter, and hide that it was."""

    def validate_value(self, value: Any) -> None:
        super().validate_value(value)  # type: ignore[no-untyped-call]
        if len(value) * 8 != self.value_bit_size:
            self.invalidate_value(value, msg=f"is not {self.value_bit_size} bits long")


def _strict_types() -> ABIRegistry:
    types: ABIRegistry = standard_types.copy()  # type: ignore[no-untyped-call]
    types.unregister("bytes<M>")
    with_length = BaseEquals("bytes", with_sub=True)  # type: ignore[no-untyped-call]
    types.register(with_length, _WholeBytes, BytesDecoder, label="bytes<M>")
    return types


_encode = ABIEncoder(_strict_types()).encode


@dataclass(frozen=True, slots=True)
class _Function:
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@cache
def _artifact(name: str) -> dict[str, Any]:
    artifact: dict[str, Any] = json.loads((_ARTIFACTS / f"{name}.json").read_text())
    return artifact


def _items(name: str, kind: str) -> list[dict[str, Any]]:
    return [item for item in _artifact(name)["abi"] if item["type"] == kind]


@cache
def _functions(name: str) -> dict[tuple[str, int], _Function]:
    """By name and number of arguments: no two of ours have both in common."""
    return {
        (item["name"], len(item["inputs"])): _Function(
            _signature_hash(item)[:4], _types(item["inputs"]), _types(item["outputs"])
        )
        for item in _items(name, "function")
    }


@cache
def _events(name: str) -> dict[bytes, dict[str, Any]]:
    """By topic 0."""
    return {_signature_hash(item): item for item in _items(name, "event")}


def creation_code(name: str, *args: Any) -> bytes:
    """The init code that deploys a contract with these constructor arguments."""
    inputs = [types for item in _items(name, "constructor") for types in _types(item["inputs"])]
    return bytes.fromhex(_artifact(name)["bytecode"].removeprefix("0x")) + _encode(inputs, args)


def call_data(name: str, function: str, *args: Any) -> bytes:
    """The ABI-encoded call of a function."""
    called = _functions(name)[function, len(args)]
    return called.selector + _encode(called.inputs, args)


def read(
    gateway: ChainGateway,
    name: str,
    address: str,
    function: str,
    *args: Any,
    block: int | None = None,
) -> Any:
    """Call a view function and decode its one or many results, as of `block` or the newest.

    Raises:
        CallReverted: the contract refused.
        ChainUnavailable: the answer is not what this function returns.
    """
    answer = gateway.call(address, call_data(name, function, *args), block=block)
    try:
        values = decode(_functions(name)[function, len(args)].outputs, answer)
    except Exception as error:
        raise ChainUnavailable(f"{name} at {address} answered nonsense to {function}") from error
    return values[0] if len(values) == 1 else values


def registering(
    grant: Grant, public_key: bytes, owner_signature: bytes | None = None, kind: str = "eip712"
) -> bytes:
    """The call that registers one session, whose public key is 65 bytes: 0x04 ‖ x ‖ y.

    The owner's signature is of that kind of `CONSENT`; without it the consent is recorded as none.
    """
    registration = _registration(grant, public_key, owner_signature, kind)
    return call_data(SESSION_REGISTRY, "register", [registration])


def rotating(
    old: Grant,
    old_token_id: bytes,
    grant: Grant,
    public_key: bytes,
    owner_signature: bytes | None = None,
    kind: str = "eip712",
) -> bytes:
    """The call that registers one session, as `registering`, and revokes an `old` one."""
    registration = _registration(grant, public_key, owner_signature, kind)
    return call_data(SESSION_REGISTRY, "rotate", _ref(old, old_token_id), registration)


def revoking(grant: Grant, token_id: bytes) -> bytes:
    """The call that revokes one session, for its owner or an operator to send."""
    return call_data(SESSION_REGISTRY, "revoke", [_ref(grant, token_id)])


def lowering(grant: Grant, token_id: bytes, limits: Limits) -> bytes:
    """The call that lowers the limits of one session, for its owner or an operator to send."""
    lower = tuple(limits_for_chain(limits).values())
    return call_data(
        SESSION_REGISTRY, "lowerLimits", int.from_bytes(token_id), grant.abi_tuple(), lower
    )


def closing(workspace_id: str) -> bytes:
    """The call that ends every session of a workspace, for an operator to send."""
    return call_data(SESSION_REGISTRY, "closeWorkspace", keccak(text=workspace_id))


def opening(workspace_id: str) -> bytes:
    """The call that opens a workspace again, for an operator to send."""
    return call_data(SESSION_REGISTRY, "openWorkspace", keccak(text=workspace_id))


def accepts_signature(
    gateway: ChainGateway, wallet: str, digest: bytes, signature: bytes, *, block: int | None = None
) -> bool:
    """Whether a wallet that is a contract takes a signature over a digest for its own (ERC-1271).

    It is asked on the state after `block`, or on the newest; the registry judges its answer alike.

    Raises:
        ChainUnavailable: the endpoint does not answer, or has no such state any more.
    """
    question = _IS_VALID_SIGNATURE + _encode(["bytes32", "bytes"], [digest, signature])
    try:
        answer = gateway.call(wallet, question, block=block)
    except CallReverted:
        return False
    return answer[:32] == _IS_VALID_SIGNATURE.ljust(32, b"\0")


def log_id_of(anchorer: str, salt: bytes) -> bytes:
    """The id under which `anchorer` opens a log with this salt: AnchorRegistry's `logIdOf`."""
    return keccak(bytes(12) + bytes.fromhex(anchorer[2:]) + salt)


def anchors_of(gateway: ChainGateway, registry: str) -> str | None:
    """The anchor registry that a session registry names; None if there is no such contract."""
    if not gateway.code(registry):
        return None
    try:
        address = read(gateway, SESSION_REGISTRY, registry, "anchors")
    except CallReverted:
        return None
    return str(address).lower()


def decode_log(name: str, log: Log) -> Event | None:
    """Decode an event of a contract; None if it has no such event or it is malformed.

    Addresses come with their checksum (EIP-55), structs as dictionaries.
    """
    item = _events(name).get(log.topics[0]) if log.topics else None
    if item is None:
        return None
    indexed = [field for field in item["inputs"] if field["indexed"]]
    others = [field for field in item["inputs"] if not field["indexed"]]
    if len(log.topics) != 1 + len(indexed):
        return None
    try:
        values = [
            *(
                decode([field["type"]], topic)[0]
                for field, topic in zip(indexed, log.topics[1:], strict=True)
            ),
            *decode(_types(others), log.data),
        ]
    except (DecodingError, ValueError, OverflowError):
        return None
    return Event(item["name"], _named([*indexed, *others], values), log)


def event_topic(name: str, event: str) -> bytes:
    """Topic 0 of an event."""
    return next(topic for topic, item in _events(name).items() if item["name"] == event)


def has_event(name: str, event: str) -> bool:
    """Whether a contract has an event of that name."""
    return any(item["name"] == event for item in _events(name).values())


def revert_name(error: CallReverted, name: str = SESSION_REGISTRY) -> str:
    """What a contract refused with: the name of its custom error where it is one of ours."""
    for item in _items(name, "error"):
        if _signature_hash(item)[:4] == error.data[:4]:
            return str(item["name"])
    return error.reason or "a revert without a reason"


def _ref(grant: Grant, token_id: bytes) -> tuple[Any, ...]:
    """How the registry is told which session is meant."""
    return int.from_bytes(token_id), to_checksum_address(grant.owner), grant.hash()


def _registration(
    grant: Grant, public_key: bytes, owner_signature: bytes | None, kind: str
) -> tuple[Any, ...]:
    x, y = public_key[1:33], public_key[33:65]
    consent = CONSENT.index(kind if owner_signature else "none")
    return grant.abi_tuple(), x, y, False, consent, owner_signature or b""


def _signature_hash(item: Any) -> bytes:
    return keccak(text=f"{item['name']}({','.join(_types(item['inputs']))})")


def _types(fields: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(_type, fields))


def _type(field: Any) -> str:
    kind = str(field["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_types(field['components']))}){kind.removeprefix('tuple')}"


def _named(fields: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    return {
        field["name"]: _shown(field, value) for field, value in zip(fields, values, strict=True)
    }


def _shown(field: Any, value: Any) -> Any:
    if field["type"] == "tuple":
        return _named(field["components"], value)
    return to_checksum_address(value) if field["type"] == "address" else value
