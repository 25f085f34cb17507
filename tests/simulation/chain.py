"""A chain in memory that reorganises, forgets and fails as it is told: a `ChainGateway`.

It runs the three calls that the engine makes of its contracts (register, revoke, anchor) and an
owner's `lowerLimits` by their rules in `contracts/src`, mines when told, and can put other blocks
in the place of its newest.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from operator import le
from typing import Any

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3 import Web3

from engine.chain import contracts
from engine.chain.bloom import bloom_of
from engine.chain.contracts import ANCHOR_REGISTRY, SESSION_REGISTRY
from engine.chain.gateway import (
    BLOOM_BYTES,
    NO_SENDER,
    BlockHeader,
    CallReverted,
    Log,
    Receipt,
    TopicFilter,
    TransactionRejected,
    log_matches,
)

REGISTRY = "0x" + "a1" * 20
ANCHORS = "0x" + "a2" * 20
CODE_HASH = b"\xc0" * 32
GAS = 200_000

_LIMITS = "(uint64,uint64,uint64,uint64,uint64)"
_GRANT = f"(address,address,bytes32,{_LIMITS},bytes32,uint64,uint64,bytes32,bytes32,bytes32)"
_REGISTRATION = f"({_GRANT},bytes32,bytes32,bool,uint8,bytes)"
_SESSION = "(uint256,address,bytes32)"
_CODEC = Web3().codec
_TOPICS = {
    name: contracts.event_topic(contract, name)
    for contract, name in (
        (SESSION_REGISTRY, "SessionRegistered"),
        (SESSION_REGISTRY, "SessionRevoked"),
        (SESSION_REGISTRY, "LimitsLowered"),
        (ANCHOR_REGISTRY, "Anchored"),
    )
}


def _selector(signature: str) -> bytes:
    return bytes(keccak(text=signature)[:4])


_CALLS = {
    _selector(f"register({_REGISTRATION}[])"): ("register", f"{_REGISTRATION}[]"),
    _selector(f"revoke({_SESSION}[])"): ("revoke", f"{_SESSION}[]"),
    _selector(f"lowerLimits(uint256,{_GRANT},{_LIMITS})"): ("lower", "uint256", _GRANT, _LIMITS),
    _selector("anchor(bytes32,uint64,bytes32)"): ("anchor", "bytes32", "uint64", "bytes32"),
}


@dataclass(frozen=True)
class Transaction:
    """A call on its way: by the operator with its nonce, or by somebody else (`nonce` None)."""

    hash: bytes
    nonce: int | None
    call: str
    args: tuple[Any, ...]


@dataclass
class Block:
    """A block; `facts` are what its transactions changed, as `(kind, subject, value)`."""

    header: BlockHeader
    transactions: list[Transaction]
    receipts: dict[bytes, Receipt] = field(default_factory=dict)
    logs: list[Log] = field(default_factory=list)
    facts: list[tuple[str, Any, Any]] = field(default_factory=list)


class ScriptedChain:
    """See the module. `at_call` is called before every question and may raise in its place."""

    chain_id = 31337

    def __init__(self, operator: str, grant_hash: Callable[[tuple[Any, ...]], bytes]) -> None:
        self._operator = operator
        self._grant_hash = grant_hash
        self._pool: list[Transaction] = []
        self._forks = 0
        self.at_call: Callable[[], None] = lambda: None
        genesis = BlockHeader(0, keccak(b"genesis"), bytes(32), 1, bytes(BLOOM_BYTES))
        self.blocks: list[Block] = [Block(genesis, [])]
        self.time_max_s = 1

    # What happens to it

    def mine(self, time_s: int) -> None:
        """One block of everything that waits; its time is after its parent's."""
        parent = self.blocks[-1].header
        time_s = max(time_s, parent.timestamp_s + 1)
        number = parent.number + 1
        seed = b"%d/%d/%d" % (number, time_s, self._forks) + parent.hash
        header = BlockHeader(number, keccak(seed), parent.hash, time_s, bytes(BLOOM_BYTES))
        block = Block(header, [])
        self.blocks.append(block)
        waiting, self._pool = self._pool, []
        for transaction in sorted(waiting, key=lambda t: -1 if t.nonce is None else t.nonce):
            if transaction.nonce is None or transaction.nonce == self._nonce():
                self._run(block, transaction)
            elif transaction.nonce > self._nonce():
                self._pool.append(transaction)
        block.header = replace(header, logs_bloom=bloom_of(block.logs))
        self.time_max_s = max(self.time_max_s, time_s)

    def reorganise(self, depth: int, keep: Callable[[], bool]) -> None:
        """Take the newest blocks away; a transaction of theirs waits again if `keep()`."""
        depth = min(depth, len(self.blocks) - 1)
        gone = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        self._forks += 1
        self._pool += [t for block in gone for t in block.transactions if keep()]

    def forget_pool(self) -> None:
        """What waits is gone, as when a node is started again."""
        self._pool.clear()

    def by_somebody(self, data: bytes) -> None:
        """A call that the engine did not send: an owner who revokes, a thief who registers."""
        seed = b"%d/%d/%d" % (len(self.blocks), self._forks, len(self._pool)) + data
        self._pool.append(Transaction(keccak(seed), None, *_decoded(data)))

    # What it holds, in plain words, for those who check

    def sessions(self) -> dict[int, dict[str, Any]]:
        """By token id: the first registration (hash, block, limits), if it is revoked, and what
        lowered it: each transaction, and its limits in the order of the struct."""
        found: dict[int, dict[str, Any]] = {}
        for block in self.blocks:
            for kind, subject, value in block.facts:
                if kind == "registered":
                    found[subject] = {
                        "grant_hash": value[0].hex(),
                        "block": block.header.number,
                        "limits": value[1],
                        "lowered": [],
                        "revoked": False,
                    }
                elif kind == "revoked":
                    found[subject]["revoked"] = True
                elif kind == "lowered":
                    found[subject]["lowered"].append(value)
        return found

    def anchored(self) -> list[tuple[int, bytes]]:
        """(size, root) of every anchor."""
        return [(s, root) for b in self.blocks for kind, s, root in b.facts if kind == "anchored"]

    # ChainGateway

    def head(self) -> BlockHeader:
        self.at_call()
        return self.blocks[-1].header

    def block(self, number: int) -> BlockHeader | None:
        self.at_call()
        return self.blocks[number].header if number < len(self.blocks) else None

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        self.at_call()
        return [block.header for block in self.blocks[first : last + 1]]

    def block_logs(self, header: BlockHeader) -> list[Log]:
        self.at_call()
        return self.blocks[header.number].logs

    def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        addresses: Collection[str] | None = None,
        topics: Sequence[TopicFilter] = (),
    ) -> list[Log]:
        self.at_call()
        return [
            log
            for block in self.blocks[from_block : to_block + 1]
            for log in block.logs
            if log_matches(log, addresses, topics)
        ]

    def call(
        self, to: str, data: bytes, *, block: int | None = None, sender: str = NO_SENDER
    ) -> bytes:
        """Only who may anchor is asked."""
        self.at_call()
        assert data[:4] == _selector("anchorerOf(bytes32)")
        return _word(self._operator)

    def code(self, address: str) -> bytes:
        raise NotImplementedError("nothing that is simulated asks for it")

    def code_hashes(self, addresses: Sequence[str]) -> list[bytes]:
        self.at_call()
        return [CODE_HASH] * len(addresses)

    def balance(self, address: str) -> int:
        raise NotImplementedError("nothing that is simulated asks for it")

    def transaction_count(self, address: str, *, pending: bool = False) -> int:
        self.at_call()
        count = self._nonce()
        waiting = {transaction.nonce for transaction in self._pool}
        while pending and count in waiting:
            count += 1
        return count

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        self.at_call()
        if (reason := self._refusal(*_decoded(data))) is not None:
            raise CallReverted(b"", reason)
        return GAS

    def fees(self) -> tuple[int, int]:
        self.at_call()
        return 10**9, 10**8

    def send_raw(self, raw: bytes) -> bytes:
        self.at_call()
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        assert Account.recover_transaction(raw).lower() == self._operator
        transaction = Transaction(bytes(keccak(raw)), fields["nonce"], *_decoded(fields["data"]))
        others = {other.nonce: other.hash for other in self._pool}
        if fields["nonce"] < self._nonce():
            raise TransactionRejected("nonce too low")
        if others.get(transaction.nonce, transaction.hash) != transaction.hash:
            raise TransactionRejected("replacement transaction underpriced")
        if transaction.nonce not in others:
            self._pool.append(transaction)
        self.at_call()  # it was accepted and nobody hears it
        return transaction.hash

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        self.at_call()
        for block in reversed(self.blocks):
            if tx_hash in block.receipts:
                return block.receipts[tx_hash]
        return None

    def close(self) -> None:
        """It outlives every engine."""

    def _nonce(self) -> int:
        return sum(
            transaction.nonce is not None
            for block in self.blocks
            for transaction in block.transactions
        )

    def _refusal(self, call: str, args: tuple[Any, ...]) -> str | None:
        if call == "anchor":
            return None if args[1] > max((s for s, _ in self.anchored()), default=0) else "size"
        known = self.sessions()
        if call == "register":
            [(_, x, y, *_)] = args[0]
            return "SessionExists" if int.from_bytes(keccak(x + y)) in known else None
        if call == "lower":
            return _not_lower(known.get(args[0]), self._grant_hash(args[1]).hex(), args[2])
        [(token_id, _, _)] = args[0]
        session = known.get(token_id)
        if session is None or session["revoked"]:
            return "SessionUnknown" if session is None else "NothingToRevoke"
        return None

    def _run(self, block: Block, transaction: Transaction) -> None:
        block.transactions.append(transaction)
        call, args, logs = transaction.call, transaction.args, []
        succeeded = self._refusal(call, args) is None
        if succeeded:
            address, topics, data, fact = getattr(self, f"_{call}")(transaction, args)
            logs = [
                Log(
                    address,
                    topics,
                    data,
                    block.header.number,
                    block.header.hash,
                    transaction.hash,
                    len(block.logs),
                )
            ]
            block.facts.append(fact)
        block.logs += logs
        block.receipts[transaction.hash] = Receipt(
            transaction.hash,
            block.header.number,
            block.header.hash,
            succeeded,
            GAS,
            None,
            tuple(logs),
        )

    def _register(self, _: Transaction, args: tuple[Any, ...]) -> Any:
        [(grant, x, y, _, consent, _)] = args[0]
        token_id, grant_hash = keccak(x + y), self._grant_hash(grant)
        topics = (_TOPICS["SessionRegistered"], token_id, _word(grant[0]), grant_hash)
        data = _CODEC.encode(["uint8", _GRANT], [consent, grant])
        fact = ("registered", int.from_bytes(token_id), (grant_hash, grant[3]))
        return REGISTRY, topics, data, fact

    def _revoke(self, transaction: Transaction, args: tuple[Any, ...]) -> Any:
        [(token_id, owner, grant_hash)] = args[0]
        by = owner if transaction.nonce is None else self._operator
        topics = (_TOPICS["SessionRevoked"], token_id.to_bytes(32), grant_hash, _word(by))
        return REGISTRY, topics, b"", ("revoked", token_id, None)

    def _lower(self, transaction: Transaction, args: tuple[Any, ...]) -> Any:
        token_id, grant, limits = args
        by = grant[0] if transaction.nonce is None else self._operator
        topics = (
            *(_TOPICS["LimitsLowered"], token_id.to_bytes(32)),
            *(self._grant_hash(grant), _word(by)),
        )
        fact = ("lowered", token_id, ("0x" + transaction.hash.hex(), limits))
        return REGISTRY, topics, _CODEC.encode([_LIMITS], [limits]), fact

    def _anchor(self, _: Transaction, args: tuple[Any, ...]) -> Any:
        log_id, size, root = args
        return (
            ANCHORS,
            (_TOPICS["Anchored"], log_id, size.to_bytes(32)),
            root,
            ("anchored", size, root),
        )


def _not_lower(
    session: dict[str, Any] | None, grant_hash: str, limits: tuple[int, ...]
) -> str | None:
    """Why limits cannot be lowered to these: each is at most what is in force, and one is below."""
    if session is None or session["grant_hash"] != grant_hash:
        return "SessionUnknown" if session is None else "GrantMismatch"
    current = session["lowered"][-1][1] if session["lowered"] else session["limits"]
    lower = limits != current and all(map(le, limits, current))
    return None if lower else "LimitsNotLower"


def _decoded(data: bytes) -> tuple[str, tuple[Any, ...]]:
    call, *types = _CALLS[bytes(data[:4])]
    return call, tuple(_CODEC.decode(types, bytes(data[4:])))


def _word(address: str) -> bytes:
    return bytes.fromhex(address[2:]).rjust(32, b"\0")
