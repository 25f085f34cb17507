"""A chain whose every block a test writes, with one token (EIP-3009) on it, as a gateway."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from engine.chain.bloom import bloom_of
from engine.chain.contracts import AUTHORIZATION_USED, ERC20_TRANSFER
from engine.chain.gateway import (
    BlockHeader,
    CallReverted,
    ChainUnavailable,
    Log,
    Receipt,
    check_succession,
)
from engine.payments.authorization import Authorization
from tests.payments.tokens import selector

TOKEN = "0x" + "70" * 20


@dataclass(frozen=True)
class Transaction:
    """What it emits, as (topics, data); `reverted` if it is there and does nothing."""

    hash: bytes
    events: tuple[tuple[tuple[bytes, ...], bytes], ...] = ()
    reverted: bool = False


def topic(address: str) -> bytes:
    """An address as an indexed argument."""
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def used(authorization: Authorization) -> tuple[tuple[bytes, ...], bytes]:
    """The event that its nonce was used."""
    return (AUTHORIZATION_USED, topic(authorization.payer), authorization.nonce), b""


def moved(payer: str, to: str, amount: int) -> tuple[tuple[bytes, ...], bytes]:
    """The event of a transfer."""
    return (ERC20_TRANSFER, topic(payer), topic(to)), amount.to_bytes(32)


def paying(authorization: Authorization, salt: str = "") -> Transaction:
    """It is settled, as it should be."""
    sent = moved(authorization.payer, authorization.pay_to, authorization.amount)
    return Transaction(keccak(authorization.nonce + salt.encode()), (used(authorization), sent))


@dataclass(frozen=True)
class Block:
    header: BlockHeader
    logs: tuple[Log, ...]
    transactions: tuple[Transaction, ...]


@dataclass
class ScriptedChain:
    """A `ChainGateway` as far as payments need one; `state` is the token's answer, by block."""

    chain_id: int
    start_s: int
    blocks: list[Block] = field(default_factory=list)
    silent: bool = False
    state: Callable[[bytes, int], bytes] | None = None
    _written: int = 0

    def __post_init__(self) -> None:
        self.mine(at_s=self.start_s)

    def mine(self, *transactions: Transaction, at_s: int | None = None) -> Block:
        """One more block; a second later than the last unless said."""
        self._written += 1
        above = self.blocks[-1].header if self.blocks else None
        number = 0 if above is None else above.number + 1
        block_hash = keccak(text=f"{self.chain_id} {self._written}")
        events = [
            (transaction.hash, event)
            for transaction in transactions
            if not transaction.reverted
            for event in transaction.events
        ]
        logs = tuple(
            Log(TOKEN, topics, data, number, block_hash, tx_hash, index)
            for index, (tx_hash, (topics, data)) in enumerate(events)
        )
        header = BlockHeader(
            number=number,
            hash=block_hash,
            parent_hash=bytes(32) if above is None else above.hash,
            timestamp_s=at_s or (self.start_s if above is None else above.timestamp_s + 1),
            logs_bloom=bloom_of(logs),
        )
        self.blocks.append(Block(header, logs, transactions))
        return self.blocks[-1]

    def drop(self, depth: int) -> None:
        """The newest blocks are on the chain no more."""
        del self.blocks[len(self.blocks) - depth :]

    # The gateway

    def head(self) -> BlockHeader:
        if self.silent:
            raise ChainUnavailable("silent")
        return self.blocks[-1].header

    def block(self, number: int) -> BlockHeader | None:
        return self.blocks[number].header if number < len(self.blocks) else None

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        found = [block.header for block in self.blocks[first : last + 1]]
        check_succession(found, first, last)
        return found

    def block_logs(self, header: BlockHeader) -> list[Log]:
        return list(self.blocks[header.number].logs)

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        for block in self.blocks:
            for transaction in block.transactions:
                if transaction.hash == tx_hash:
                    at = block.header
                    done = not transaction.reverted
                    return Receipt(tx_hash, at.number, at.hash, done, 21_000, None, ())
        return None

    def code(self, address: str) -> bytes:
        return b"\x60" if address == TOKEN else b""

    def call(self, to: str, data: bytes, *, block: int | None = None, sender: str = "") -> bytes:
        texts = {selector("name()"): "Scripted", selector("version()"): "1"}
        if data in texts:
            return encode(["string"], [texts[data]])
        if data[:4] != selector("authorizationState(address,bytes32)"):
            raise CallReverted(b"", "")
        nonce, upto = data[36:], len(self.blocks) - 1 if block is None else block
        if self.state is not None:
            return self.state(nonce, upto)
        return int(bool(self.uses(nonce, upto))).to_bytes(32)

    def uses(self, nonce: bytes, upto: int) -> Sequence[Log]:
        """The events of a nonce's use up to a block."""
        return [
            log
            for block in self.blocks[: upto + 1]
            for log in block.logs
            if log.topics[0] == AUTHORIZATION_USED and log.topics[2] == nonce
        ]

    def close(self) -> None:
        """Nothing to release."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks {name} for a payment")
