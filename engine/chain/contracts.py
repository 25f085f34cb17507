"""Our contracts as the engine sees them: call data out, events and answers in.

The ABI and bytecode come from `contracts/artifacts`, which the compiler wrote; users need none.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception

from engine.chain.gateway import CallReverted, ChainGateway, ChainUnavailable, Log
from engine.grant import Grant, limits_for_chain
from engine.policy.limits import Limits

_ARTIFACTS = Path(__file__).parents[2] / "contracts" / "artifacts"

SESSION_REGISTRY = "SessionRegistry"
ANCHOR_REGISTRY = "AnchorRegistry"
TEST_USDC = "TestUSDC"

CONSENT = ("none", "eip712", "erc1271", "passkey")
"""The registry's `Consent` enum, in order."""

ERC20_TRANSFER: bytes = Web3.keccak(text="Transfer(address,address,uint256)")
"""Topic 0 of a transfer (ERC-20)."""
AUTHORIZATION_USED: bytes = Web3.keccak(text="AuthorizationUsed(address,bytes32)")
"""Topic 0 of a used payment authorization (EIP-3009)."""
_IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")
"""Selector of `isValidSignature(bytes32,bytes)`, and what it answers for yes (ERC-1271)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded event and where it stands."""

    name: str
    args: dict[str, Any]
    log: Log


@cache
def _artifact(name: str) -> dict[str, Any]:
    artifact: dict[str, Any] = json.loads((_ARTIFACTS / f"{name}.json").read_text())
    return artifact


@cache
def _contract(name: str) -> Contract:
    contract: Contract = Web3().eth.contract(abi=_artifact(name)["abi"])  # type: ignore[assignment]
    return contract


@cache
def _events_by_topic(name: str) -> dict[bytes, str]:
    contract = _contract(name)
    return {
        bytes.fromhex(contract.events[item["name"]]().topic[2:]): item["name"]
        for item in _artifact(name)["abi"]
        if item["type"] == "event"
    }


def creation_code(name: str, *args: Any) -> bytes:
    """The init code that deploys a contract with these constructor arguments."""
    contract = Web3().eth.contract(abi=_artifact(name)["abi"], bytecode=_artifact(name)["bytecode"])
    return bytes.fromhex(str(contract.constructor(*args).data_in_transaction)[2:])


def call_data(name: str, function: str, *args: Any) -> bytes:
    """The ABI-encoded call of a function."""
    return bytes.fromhex(str(_contract(name).encode_abi(function, args=list(args)))[2:])


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
    contract = _contract(name)
    answer = gateway.call(address, call_data(name, function, *args), block=block)
    abi = contract.get_function_by_name(function).abi
    types = [_abi_type(output) for output in abi.get("outputs", ())]
    try:
        values = contract.w3.codec.decode(types, answer)
    except Exception as error:
        raise ChainUnavailable(f"{name} at {address} answered nonsense to {function}") from error
    return values[0] if len(values) == 1 else values


def registering(
    grant: Grant, public_key: bytes, owner_signature: bytes | None = None, kind: str = "eip712"
) -> bytes:
    """The call that registers one session, whose public key is 65 bytes: 0x04 ‖ x ‖ y.

    The owner's signature is of that kind of `CONSENT`; without it the consent is recorded as none.
    """
    x, y = public_key[1:33], public_key[33:65]
    consent = CONSENT.index(kind if owner_signature else "none")
    registration = (grant.abi_tuple(), x, y, False, consent, owner_signature or b"")
    return call_data(SESSION_REGISTRY, "register", [registration])


def revoking(grant: Grant, token_id: bytes) -> bytes:
    """The call that revokes one session, for its owner or an operator to send."""
    session = (int.from_bytes(token_id), to_checksum_address(grant.owner), grant.hash())
    return call_data(SESSION_REGISTRY, "revoke", [session])


def lowering(grant: Grant, token_id: bytes, limits: Limits) -> bytes:
    """The call that lowers the limits of one session, for its owner or an operator to send."""
    lower = tuple(limits_for_chain(limits).values())
    return call_data(
        SESSION_REGISTRY, "lowerLimits", int.from_bytes(token_id), grant.abi_tuple(), lower
    )


def closing(workspace_id: str) -> bytes:
    """The call that ends every session of a workspace, for an operator to send."""
    return call_data(SESSION_REGISTRY, "closeWorkspace", Web3.keccak(text=workspace_id))


def opening(workspace_id: str) -> bytes:
    """The call that opens a workspace again, for an operator to send."""
    return call_data(SESSION_REGISTRY, "openWorkspace", Web3.keccak(text=workspace_id))


def accepts_signature(
    gateway: ChainGateway, wallet: str, digest: bytes, signature: bytes, *, block: int | None = None
) -> bool:
    """Whether a wallet that is a contract takes a signature over a digest for its own (ERC-1271).

    It is asked on the state after `block`, or on the newest; the registry judges its answer alike.

    Raises:
        ChainUnavailable: the endpoint does not answer, or has no such state any more.
    """
    question = _IS_VALID_SIGNATURE + encode(["bytes32", "bytes"], [digest, signature])
    try:
        answer = gateway.call(wallet, question, block=block)
    except CallReverted:
        return False
    return answer[:32] == _IS_VALID_SIGNATURE.ljust(32, b"\0")


def log_id_of(anchorer: str, salt: bytes) -> bytes:
    """The id under which `anchorer` opens a log with this salt: AnchorRegistry's `logIdOf`."""
    return bytes(Web3.keccak(bytes(12) + bytes.fromhex(anchorer[2:]) + salt))


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
    """Decode an event of a contract; None if it has no such event or it is malformed."""
    event = _events_by_topic(name).get(log.topics[0]) if log.topics else None
    if event is None:
        return None
    raw: Any = {
        "address": to_checksum_address(log.address),
        "topics": log.topics,
        "data": log.data,
        "blockNumber": log.block_number,
        "blockHash": log.block_hash,
        "transactionHash": log.tx_hash,
        "transactionIndex": 0,
        "logIndex": log.log_index,
    }
    try:
        decoded = _contract(name).events[event]().process_log(raw)
    except (Web3Exception, DecodingError, ValueError, OverflowError):
        return None
    return Event(event, dict(decoded["args"]), log)


def event_topic(name: str, event: str) -> bytes:
    """Topic 0 of an event."""
    return next(topic for topic, known in _events_by_topic(name).items() if known == event)


def has_event(name: str, event: str) -> bool:
    """Whether a contract has an event of that name."""
    return event in _events_by_topic(name).values()


def revert_name(error: CallReverted, name: str = SESSION_REGISTRY) -> str:
    """What a contract refused with: the name of its custom error where it is one of ours."""
    for item in _artifact(name)["abi"]:
        if item["type"] == "error":
            types = ",".join(_abi_type(field) for field in item["inputs"])
            if Web3.keccak(text=f"{item['name']}({types})")[:4] == error.data[:4]:
                return str(item["name"])
    return error.reason or "a revert without a reason"


def _abi_type(field: Any) -> str:
    kind = str(field["type"])
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(_abi_type(part) for part in field["components"])
    return f"({inner}){kind.removeprefix('tuple')}"
