"""The embedded chain: eth-tester in this process, on py-evm, kept on disk.

Its genesis, accounts and backend are eth-tester's; `tester` is the chain as eth-tester, so that
web3 sees and sends on the very chain that the engine does. Every transaction sent to it is mined at
once, in a block of its own (a tester told to mine by hand may gather several), under the rules of
the Prague fork. With a path it survives restarts and kill -9 at any moment with the same hashes,
logs and balances: once `send_raw` has returned, its block is durable. The funded keys are the
public ones of eth-tester: it is for development and an audit trail on one machine, not for value.

    chain = EmbeddedChain(data_dir / "chain.sqlite3")
    chain.fund(address, 10**18)
    web3 = Web3(EthereumTesterProvider(chain.tester))

A block's time follows the clock and is at least its parent's plus one second. Its prevrandao value
is the hash of its parent's hash: the same transactions at the same times give the same chain.
"""

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine.chain.py_evm  # noqa: F401 (before anything else imports py-evm)

# isort: split
from eth.abc import BlockHeaderAPI, ComputationAPI, SignedTransactionAPI, VirtualMachineAPI
from eth.chains.base import MiningChain
from eth.constants import ZERO_ADDRESS
from eth.exceptions import HeaderNotFound, TransactionNotFound
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from engine.chain import sender as transactions
from engine.chain.account import KeyAccount
from engine.chain.bloom import bloom_of
from engine.chain.embedded_forms import (
    contract_address,
    raw_address,
    signed_transaction,
    to_header,
)
from engine.chain.embedded_genesis import faucet_account, open_chain
from engine.chain.embedded_store import BlockStore
from engine.chain.gateway import (
    NO_SENDER,
    BlockHeader,
    CallReverted,
    ChainError,
    ChainUnavailable,
    Log,
    Receipt,
    TopicFilter,
    TransactionRejected,
    check_succession,
    log_matches,
    revert_reason,
)
from engine.clock import system_clock

if TYPE_CHECKING:  # eth-tester is slow to import, and a restart needs nothing of it
    from engine.chain.embedded_tester import EmbeddedTester

ETH_TESTER_CHAIN_ID = 131277322940537
TIP_WEI = 10**9
_CALL_STIPEND = 2300


def _wall_clock_s() -> int:
    return system_clock() // 1000


class EmbeddedChain:
    """A `ChainGateway` over a chain that lives here. Every method may be called from any thread.

    `path` None keeps it in memory. `clock` gives seconds since the epoch.

    Raises:
        ChainError: the file is damaged, not a chain, of another chain id, or open elsewhere.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        chain_id: int = ETH_TESTER_CHAIN_ID,
        clock: Callable[[], int] = _wall_clock_s,
    ) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._chain_id = chain_id
        self._store = BlockStore(path)
        self._closed = False
        try:
            self._chain = open_chain(self._store, chain_id, clock)
        except ChainError:
            self._store.close()
            raise
        except Exception as error:
            self._store.close()
            raise ChainError(f"{path}: damaged: {error}") from error

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        return self._chain_id

    @contextlib.contextmanager
    def locked(self) -> Iterator[MiningChain]:
        """Hold the lock and lend the py-evm chain, for reading only.

        Raises:
            ChainUnavailable: closed, or the file cannot be read or written.
        """
        with self._lock:
            if self._closed:
                raise ChainUnavailable("the embedded chain is closed")
            try:
                yield self._chain
            except sqlite3.Error as error:
                raise ChainUnavailable(f"the embedded chain's file failed: {error}") from error

    # Reading

    def head(self) -> BlockHeader:
        """See `ChainGateway.head`."""
        with self.locked() as chain:
            return to_header(chain.get_canonical_head())

    def block(self, number: int) -> BlockHeader | None:
        """See `ChainGateway.block`."""
        header = self._header_at(number)
        return None if header is None else to_header(header)

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        """See `ChainGateway.headers`."""
        with self.locked():
            found = (self.block(number) for number in range(first, last + 1))
            headers = [header for header in found if header is not None]
        check_succession(headers, first, last)
        return headers

    def _header_at(self, number: int) -> BlockHeaderAPI | None:
        with self.locked() as chain:
            try:
                return chain.get_canonical_block_header_by_number(BlockNumber(number))
            except HeaderNotFound:
                return None

    def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        addresses: Collection[str] | None = None,
        topics: Sequence[TopicFilter] = (),
    ) -> list[Log]:
        """See `ChainGateway.logs`."""
        with self.locked():
            stored = self._store.logs(from_block, to_block, addresses)
        return [log for log in stored if log_matches(log, None, topics)]

    def block_logs(self, header: BlockHeader) -> list[Log]:
        """See `ChainGateway.block_logs`."""
        with self.locked():
            logs = self._store.logs(header.number, header.number, None)
        if bloom_of(logs) != header.logs_bloom:
            raise ChainUnavailable(f"block {header.number} of the embedded chain lost an event")
        return logs

    def code_hashes(self, addresses: Sequence[str]) -> list[bytes]:
        """See `ChainGateway.code_hashes`."""
        codes = (self.code(address) for address in addresses)
        return [keccak(code) if code else bytes(32) for code in codes]

    def code(self, address: str) -> bytes:
        """See `ChainGateway.code`."""
        with self.locked():
            return self._vm().state.get_code(raw_address(address))

    def balance(self, address: str) -> int:
        """See `ChainGateway.balance`."""
        with self.locked():
            return self._vm().state.get_balance(raw_address(address))

    def transaction_count(
        self,
        address: str,
        *,
        pending: bool = False,  # noqa: ARG002 (nothing is ever pending here)
        block: int | None = None,
    ) -> int:
        """See `ChainGateway.transaction_count`."""
        with self.locked() as chain:
            header = chain.get_canonical_head() if block is None else self._header_at(block)
            if header is None:
                raise ChainUnavailable(f"there is no block {block}")
            return chain.get_vm(header).state.get_nonce(raw_address(address))

    def fees(self) -> tuple[int, int]:
        """See `ChainGateway.fees`."""
        with self.locked() as chain:
            base_fee = chain.create_header_from_parent(chain.get_canonical_head()).base_fee_per_gas
        assert base_fee is not None, "every fork since London has one"
        return 2 * base_fee + TIP_WEI, TIP_WEI

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """See `ChainGateway.receipt`."""
        tx_hash = bytes(tx_hash)  # py-evm looks up its repr, and that of web3's HexBytes differs
        with self.locked() as chain:
            try:
                number, index = chain.get_canonical_transaction_index(Hash32(tx_hash))
            except TransactionNotFound:
                return None
            transaction = chain.get_canonical_transaction_by_index(number, index)
            receipt = chain.get_transaction_receipt_by_index(number, index)
            logs = self._store.logs(number, number, None)
            before = chain.get_transaction_receipt_by_index(number, index - 1) if index else None
            return Receipt(
                tx_hash=tx_hash,
                block_number=number,
                block_hash=chain.get_canonical_block_hash(number),
                succeeded=receipt.state_root == b"\x01",
                gas_used=receipt.gas_used - (before.gas_used if before else 0),
                contract_address=contract_address(transaction),
                logs=tuple(log for log in logs if log.tx_hash == tx_hash),
                sender=f"0x{transaction.sender.hex()}",
            )

    # Executing without a transaction

    def call(
        self, to: str, data: bytes, *, block: int | None = None, sender: str = NO_SENDER
    ) -> bytes:
        """See `ChainGateway.call`. The newest state is seen at the present time."""
        return self.simulate(sender=sender, to=to, data=data, block=block).output

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """See `ChainGateway.estimate_gas`."""
        with self.locked() as chain:
            limit = chain.get_canonical_head().gas_limit
            computation = self.simulate(sender=sender, to=to, data=data, value=value)
            used = limit - computation.get_gas_remaining() + computation.data_floor_gas
            # A call may pass on 63/64 of its gas only (EIP-150): what was used may not suffice.
            for gas in (used, (used + _CALL_STIPEND) * 64 // 63, used * 5 // 4, used * 2):
                with contextlib.suppress(CallReverted):
                    self.simulate(sender=sender, to=to, data=data, value=value, gas=gas)
                    return gas
            return limit

    def simulate(
        self,
        *,
        sender: str = NO_SENDER,
        to: str | None,
        data: bytes,
        value: int = 0,
        gas: int | None = None,
        block: int | None = None,
    ) -> ComputationAPI:
        """Execute a message free of fees and forget it; return py-evm's computation.

        Raises:
            CallReverted: it reverted or ran out of gas.
            TransactionRejected: the sender has not got `value`.
            ChainUnavailable: there is no such block.
        """
        with self.locked() as chain:
            header = chain.get_canonical_head() if block is None else self._header_at(block)
            if header is None:
                raise ChainUnavailable(f"there is no block {block}")
            if block is None:
                header = header.copy(timestamp=max(self._clock(), header.timestamp))
            vm = chain.get_vm(header.copy(base_fee_per_gas=0))
            unsigned = vm.get_transaction_builder().new_unsigned_dynamic_fee_transaction(  # type: ignore[attr-defined]
                chain_id=self._chain_id,
                nonce=vm.state.get_nonce(raw_address(sender)),
                max_priority_fee_per_gas=0,
                max_fee_per_gas=0,
                gas=header.gas_limit if gas is None else min(gas, header.gas_limit),
                to=b"" if to is None else raw_address(to),
                value=value,
                data=data,
                access_list=(),
            )
            spoofed: Any = SpoofTransaction(unsigned, from_=raw_address(sender))
            try:
                computation = vm.state.apply_transaction(spoofed)
            except ValidationError as error:
                raise TransactionRejected(str(error)) from error
            if computation.is_error:
                output = computation.output
                raise CallReverted(
                    output, revert_reason(output) or type(computation.error).__name__
                )
            return computation

    def _vm(self) -> VirtualMachineAPI:
        return self._chain.get_vm(self._chain.get_canonical_head())

    # Writing

    def send_raw(self, raw: bytes) -> bytes:
        """See `ChainGateway.send_raw`. The transaction is mined, durably, before this returns."""
        with self.locked() as chain:
            transaction = signed_transaction(self._vm().get_transaction_builder(), raw)
            with contextlib.suppress(TransactionNotFound):
                chain.get_canonical_transaction_index(transaction.hash)
                return transaction.hash
            try:
                self._mine([transaction])
            except ValidationError as error:
                raise TransactionRejected(str(error)) from error
            return transaction.hash

    def mine(
        self, blocks: int = 1, timestamp_s: int | None = None, coinbase: Address = ZERO_ADDRESS
    ) -> BlockHeader:
        """Mine empty blocks, the first at `timestamp_s` (default: the clock); return the head.

        Fees go to `coinbase`, raw. What the tester has pending, which only the tester itself can
        mine, goes into the first.

        Raises:
            ChainError: `timestamp_s` is not later than the head.
        """
        with self.locked() as chain:
            if timestamp_s is not None and timestamp_s <= (head := self.head()).timestamp_s:
                raise ChainError(f"block time {timestamp_s} is not after {head.timestamp_s}")
            at = {} if timestamp_s is None else {"timestamp": timestamp_s}
            for index in range(blocks):
                pending = chain.get_block().transactions
                self._mine(pending, coinbase=coinbase, **({} if index else at))
            return self.head()

    def fund(self, address: str, wei: int) -> Receipt:
        """Send `wei` from the faucet to `address`."""
        with self.locked():
            tx_hash = transactions.send(self, self.faucet, to=address, data=b"", value=wei)
            receipt = self.receipt(tx_hash)
        assert receipt is not None, "a sent transaction is mined at once"
        return receipt

    def _mine(
        self, block_transactions: Sequence[SignedTransactionAPI], **header_params: Any
    ) -> None:
        chain = self._chain
        self._store.discard()  # what was executed to see whether it can be mined
        chain.header = chain.create_header_from_parent(chain.get_canonical_head(), **header_params)
        try:
            result, receipts, _ = chain.mine_all(block_transactions)
            block = result.imported_block
            emitted = (
                (transaction.hash, log)
                for transaction, receipt in zip(block_transactions, receipts, strict=True)
                for log in receipt.logs
            )
            self._store.commit(
                Log(
                    address=f"0x{log.address.hex()}",
                    topics=tuple(topic.to_bytes(32) for topic in log.topics),
                    data=log.data,
                    block_number=block.number,
                    block_hash=block.hash,
                    tx_hash=tx_hash,
                    log_index=log_index,
                )
                for log_index, (tx_hash, log) in enumerate(emitted)
            )
        except BaseException:
            self.drop_pending()
            raise

    def drop_pending(self) -> None:
        """Forget what was executed and not mined."""
        with self.locked() as chain:
            self._store.discard()
            chain.header = chain.create_header_from_parent(chain.get_canonical_head())

    @functools.cached_property
    def faucet(self) -> KeyAccount:
        """The account that holds the funds; everybody knows its key."""
        return faucet_account()

    @functools.cached_property
    def tester(self) -> "EmbeddedTester":
        """This chain as an `eth_tester.EthereumTester`, for web3's `EthereumTesterProvider`."""
        from engine.chain.embedded_tester import EmbeddedBackend, EmbeddedTester

        return EmbeddedTester(EmbeddedBackend(self, self._chain))

    def close(self) -> None:
        """See `ChainGateway.close`. Nothing is lost without it; it frees the file for others."""
        with self._lock:
            self._closed = True
            self._store.close()
