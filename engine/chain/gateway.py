"""The one interface through which the engine reads and writes a chain.

Rules: an address is a lower-case `0x` string, a hash is 32 bytes, an amount is wei, a time is
seconds. What an endpoint answers is untrusted: whatever does not have the shape declared here is a
`ChainUnavailable`, never a half-filled value. Nothing heavy is imported here, so that the command
line starts fast.

    gateway = EmbeddedChain(path)        # or JsonRpcChain(url)
    gateway.logs(from_block=0, to_block=gateway.head().number, addresses=[registry])
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from engine.errors import TallystickError, Unavailable

TopicFilter = bytes | Sequence[bytes] | None
"""What one topic position must be: this topic, one of these, or (None) anything."""

NO_SENDER = "0x" + "00" * 20
"""Who asks when a call names nobody, as in the execution API."""

BLOOM_BYTES = 256


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """A block, as far as confirmations and reorganisations need it.

    `logs_bloom` (256 bytes) tells what it may have logged, see `bloom.py`.
    """

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp_s: int
    logs_bloom: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """One event. `log_index` counts within the block; (block_hash, log_index) identifies it."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction. `succeeded` is false when it reverted.

    `sender` is None where the endpoint does not tell it.
    """

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    contract_address: str | None
    logs: tuple[Log, ...]
    sender: str | None = None


class ChainError(TallystickError):
    """Base class: the chain cannot be used as asked."""

    code = "chain_error"


class ChainUnavailable(ChainError, Unavailable):
    """No trustworthy answer: no connection, time-out, overload, or an answer of the wrong shape.

    After a send this means *unknown*, not failed: the transaction may still be mined.
    """

    code = "chain_unavailable"


class ChainChanged(ChainError, Unavailable):
    """It is not the chain that it was: an operator must look. What is known of it is in doubt."""

    code = "chain_changed"


class CallReverted(ChainError):
    """The contract refused. `data` is what it returned (ABI-encoded error), `reason` its text."""

    code = "call_reverted"

    def __init__(self, data: bytes, reason: str) -> None:
        super().__init__(f"reverted: {reason}" if reason else "reverted without a reason")
        self.data = data
        self.reason = reason


class TransactionRejected(ChainError):
    """The chain did not accept the transaction: it was not and will not be mined as sent."""

    code = "transaction_rejected"

    def __init__(self, reason: str) -> None:
        super().__init__(f"transaction rejected: {reason}")
        self.reason = reason


class TransactionPending(ChainError):
    """Nobody knows yet whether the transaction was mined; ask again for `tx_hash`."""

    code = "transaction_pending"

    def __init__(self, tx_hash: bytes) -> None:
        super().__init__(f"transaction 0x{tx_hash.hex()} is pending", tx_hash=f"0x{tx_hash.hex()}")
        self.tx_hash = tx_hash


class ChainGateway(Protocol):
    """A chain. Every method may raise `ChainUnavailable` and may be called from any thread."""

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        ...

    def head(self) -> BlockHeader:
        """Return the newest block.

        Raises:
            ChainChanged: the endpoint serves another chain than before.
        """
        ...

    def block(self, number: int) -> BlockHeader | None:
        """Return the canonical block of that height, or None above the head."""
        ...

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        """Return the canonical blocks `first..last` (both included), each the child of the last.

        A block that is not there, or does not follow, is `ChainUnavailable`.
        """
        ...

    def block_logs(self, header: BlockHeader) -> list[Log]:
        """Return every event of one block, whoever emitted it, in chain order.

        They make up the block's bloom; events that do not are `ChainUnavailable`.
        """
        ...

    def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        addresses: Collection[str] | None = None,
        topics: Sequence[TopicFilter] = (),
    ) -> list[Log]:
        """Return the events of blocks `from_block..to_block` (both included) in chain order.

        `addresses` None means any emitter, an empty collection means none. A trailing None in
        `topics` asks for nothing, not even that the log has so many topics.
        A range that reaches above the head may be refused (`ChainUnavailable`): an endpoint that
        lags behind must not look like one where nothing happened.
        """
        ...

    def call(
        self, to: str, data: bytes, *, block: int | None = None, sender: str = NO_SENDER
    ) -> bytes:
        """Execute without a transaction, on the state after `block` (default: the newest).

        Raises:
            CallReverted: the contract refused.
        """
        ...

    def code(self, address: str) -> bytes:
        """Return the contract code at `address`; empty if there is none."""
        ...

    def code_hashes(self, addresses: Sequence[str]) -> list[bytes]:
        """Return the Keccak-256 hash of the code at each address; 32 zero bytes without code."""
        ...

    def balance(self, address: str) -> int:
        """Return the balance in wei."""
        ...

    def transaction_count(
        self, address: str, *, pending: bool = False, block: int | None = None
    ) -> int:
        """Return the next nonce of `address` after `block` (default: the newest).

        With `pending` it counts unmined transactions too, and there is no `block`.
        """
        ...

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """Return a gas limit that suffices on the newest state; `to` None creates a contract.

        Raises:
            CallReverted: the transaction would revert.
        """
        ...

    def fees(self) -> tuple[int, int]:
        """Return (max_fee_per_gas, max_priority_fee_per_gas) in wei, fit for the next blocks."""
        ...

    def send_raw(self, raw: bytes) -> bytes:
        """Submit a signed transaction and return its hash. Sending the same again is harmless.

        Raises:
            TransactionRejected: the chain refused it.
            ChainUnavailable: it may or may not have been accepted.
        """
        ...

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """Return the receipt of a mined transaction; None while unknown or pending."""
        ...

    def close(self) -> None:
        """Release what is held. Closing twice is harmless; other calls then fail."""
        ...


def check_succession(headers: Sequence[BlockHeader], first: int, last: int) -> None:
    """Be sure that these are the blocks `first..last`, each the child of the one before.

    Raises:
        ChainUnavailable: they are not; the chain may have changed while it was read.
    """
    if [header.number for header in headers] != list(range(first, last + 1)):
        raise ChainUnavailable(f"a block of {first}..{last} disappeared while it was read")
    for parent, child in itertools.pairwise(headers):
        if child.parent_hash != parent.hash:
            raise ChainUnavailable(f"block {child.number} does not follow the one before it")


def log_matches(log: Log, addresses: Collection[str] | None, topics: Sequence[TopicFilter]) -> bool:
    """Whether a log passes an eth_getLogs filter (execution-apis, schema `Filter`)."""
    if addresses is not None and log.address not in addresses:
        return False
    return all(
        wanted is None or topic == wanted or (not isinstance(wanted, bytes) and topic in wanted)
        for wanted, topic in zip_longest(topics, log.topics[: len(topics)])
    )


_ERROR_STRING = bytes.fromhex("08c379a0")  # Error(string), Solidity ABI specification
_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256)


def revert_reason(data: bytes) -> str:
    """Render revert data for people: the text of `Error(string)`, the code of `Panic(uint256)`,
    else the selector of a custom error. Malformed data yields a selector too, never an exception.
    """
    selector, body = data[:4], data[4:]
    if selector == _PANIC and len(body) == 32:
        return f"panic 0x{int.from_bytes(body):02x}"
    if selector == _ERROR_STRING and len(body) >= 64:
        length = int.from_bytes(body[32:64])
        if int.from_bytes(body[:32]) == 32 and length <= len(body) - 64:
            return body[64 : 64 + length].decode("utf-8", "replace")
    return f"error 0x{selector.hex()}" if data else ""
