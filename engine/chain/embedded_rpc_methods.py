"""What the embedded chain answers to each JSON-RPC method (ethereum/execution-apis)."""

from collections.abc import Callable
from typing import Any

import rlp  # type: ignore[import-untyped]
from eth.abc import BlockHeaderAPI
from eth.exceptions import HeaderNotFound, TransactionNotFound
from eth_typing import Hash32

from engine.chain.embedded import TIP_WEI, EmbeddedChain
from engine.chain.embedded_rpc_fields import (
    INVALID_PARAMS,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    Parameters,
    RpcError,
    address_parameter,
    base_fee,
    bloom,
    bytes_parameter,
    header_fields,
    log_fields,
    message_parameter,
    optional,
    parse_address,
    parse_data,
    parse_list,
    parse_quantity,
    parse_topic,
    quantity,
    required,
    to_data,
    transaction_fields,
)
from engine.chain.gateway import Log

LOGS_MAX = 10_000
_FEE_HISTORY_MAX = 1024


class RpcMethods:
    """The methods by name. Each takes the positional parameters and returns JSON values.

    Raises:
        RpcError: the parameters are wrong, or too much is asked for.
        ChainError: as the methods of `EmbeddedChain`.
    """

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self._methods: dict[str, Callable[[Parameters], Any]] = {
            "eth_chainId": lambda _: quantity(chain.chain_id),
            "net_version": lambda _: str(chain.chain_id),
            "web3_clientVersion": lambda _: "tallystick/embedded",
            "eth_blockNumber": lambda _: quantity(chain.head().number),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getLogs": self._logs,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate_gas,
            "eth_gasPrice": lambda _: quantity((chain.fees()[0] + TIP_WEI) // 2),
            "eth_maxPriorityFeePerGas": lambda _: quantity(TIP_WEI),
            "eth_feeHistory": self._fee_history,
            "eth_getCode": lambda p: to_data(self._state(p).get_code(address_parameter(p, 0))),
            "eth_getBalance": lambda p: quantity(
                self._state(p).get_balance(address_parameter(p, 0))
            ),
            "eth_getTransactionCount": lambda p: quantity(
                self._state(p).get_nonce(address_parameter(p, 0))
            ),
            "eth_getTransactionReceipt": self._receipt,
            "eth_getTransactionByHash": self._transaction,
            "eth_sendRawTransaction": lambda p: to_data(chain.send_raw(bytes_parameter(p, 0))),
        }

    def __call__(self, method: str, parameters: Parameters) -> Any:
        """Answer one call."""
        if method not in self._methods:
            raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist")
        with self._chain.locked():
            return self._methods[method](parameters)

    # Blocks

    def _number(self, tag: Any) -> int:
        if tag in (None, "latest", "pending", "safe", "finalized"):
            return self._chain.head().number
        return 0 if tag == "earliest" else parse_quantity(tag)

    def _header(self, parameters: Parameters, index: int) -> BlockHeaderAPI:
        """The block that a state is asked for: a tag, a number, or an object of EIP-1898."""
        tag = optional(parameters, index)
        if isinstance(tag, dict) and "blockHash" in tag:
            header = self._header_by_hash(parse_data(tag["blockHash"], 32))
        else:
            tag = tag.get("blockNumber") if isinstance(tag, dict) else tag
            header = self._header_by_number(self._number(tag))
        if header is None:
            raise RpcError(INVALID_PARAMS, "there is no such block")
        return header

    def _header_by_number(self, number: int) -> BlockHeaderAPI | None:
        header = self._chain.block(number)
        return None if header is None else self._header_by_hash(header.hash)

    def _header_by_hash(self, block_hash: bytes) -> BlockHeaderAPI | None:
        with self._chain.locked() as chain:
            try:
                return chain.get_block_header_by_hash(Hash32(block_hash))
            except HeaderNotFound:
                return None

    def _block_by_number(self, parameters: Parameters) -> Any:
        header = self._header_by_number(self._number(required(parameters, 0)))
        return self._block(header, full=optional(parameters, 1) is True)

    def _block_by_hash(self, parameters: Parameters) -> Any:
        header = self._header_by_hash(bytes_parameter(parameters, 0, 32))
        return self._block(header, full=optional(parameters, 1) is True)

    def _block(self, header: BlockHeaderAPI | None, *, full: bool) -> Any:
        if header is None:
            return None
        with self._chain.locked() as chain:
            block = chain.get_block_by_header(header)
        return {
            **header_fields(header),
            "size": quantity(len(rlp.encode(block))),
            "transactions": [
                transaction_fields(transaction, header, index)
                if full
                else to_data(transaction.hash)
                for index, transaction in enumerate(block.transactions)
            ],
            "uncles": [],
            "withdrawals": [],
        }

    def _fee_history(self, parameters: Parameters) -> Any:
        newest = self._number(required(parameters, 1))
        count = min(parse_quantity(required(parameters, 0)), _FEE_HISTORY_MAX, newest + 1)
        found = [self._header_by_number(newest - count + 1 + at) for at in range(count)]
        headers = [header for header in found if header is not None]
        if not headers or len(headers) != count:
            raise RpcError(INVALID_PARAMS, "no such blocks")
        with self._chain.locked() as chain:
            following = chain.create_header_from_parent(headers[-1])
        percentiles = parse_list(optional(parameters, 2))
        return {
            "oldestBlock": quantity(headers[0].block_number),
            "baseFeePerGas": [base_fee(header) for header in [*headers, following]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [[quantity(TIP_WEI)] * len(percentiles) for _ in headers],
        }

    # State

    def _state(self, parameters: Parameters) -> Any:
        with self._chain.locked() as chain:
            return chain.get_vm(self._header(parameters, 1)).state

    def _call(self, parameters: Parameters) -> str:
        if optional(parameters, 2):
            raise RpcError(INVALID_PARAMS, "state overrides are not supported")
        header = self._header(parameters, 1)
        newest = header.block_number == self._chain.head().number
        message = message_parameter(parameters)
        block = None if newest else header.block_number
        return to_data(self._chain.simulate(**message, block=block).output)

    def _estimate_gas(self, parameters: Parameters) -> str:
        message = message_parameter(parameters)
        message.pop("gas")
        return quantity(self._chain.estimate_gas(**message))

    # Transactions and logs

    def _transaction(self, parameters: Parameters) -> Any:
        tx_hash = Hash32(bytes_parameter(parameters, 0, 32))
        with self._chain.locked() as chain:
            try:
                number, index = chain.get_canonical_transaction_index(tx_hash)
            except TransactionNotFound:
                return None
            header = chain.get_canonical_block_header_by_number(number)
            transaction = chain.get_canonical_transaction_by_index(number, index)
        return transaction_fields(transaction, header, index)

    def _receipt(self, parameters: Parameters) -> Any:
        transaction = self._transaction(parameters)
        receipt = self._chain.receipt(bytes_parameter(parameters, 0, 32))
        if transaction is None or receipt is None:
            return None
        with self._chain.locked() as chain:
            full = chain.get_transaction_receipt(Hash32(receipt.tx_hash))
        copied = ("type", "transactionIndex", "blockHash", "blockNumber", "from", "to")
        return {
            **{name: transaction[name] for name in copied},
            "transactionHash": transaction["hash"],
            "effectiveGasPrice": transaction["gasPrice"],
            "cumulativeGasUsed": quantity(full.gas_used),
            "gasUsed": quantity(receipt.gas_used),
            "contractAddress": receipt.contract_address,
            "logs": [self._log(log) for log in receipt.logs],
            "logsBloom": bloom(full),
            "status": quantity(int(receipt.succeeded)),
        }

    def _logs(self, parameters: Parameters) -> Any:
        wanted = required(parameters, 0)
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "the filter is not an object")
        if "blockHash" in wanted:
            header = self._header_by_hash(parse_data(wanted["blockHash"], 32))
            if header is None:
                raise RpcError(INVALID_PARAMS, "there is no such block")
            first: int = header.block_number
            last = first
        else:
            first, last = self._number(wanted.get("fromBlock")), self._number(wanted.get("toBlock"))
        if first > last:
            raise RpcError(INVALID_PARAMS, "fromBlock is after toBlock")
        emitter = wanted.get("address")
        emitters = [emitter] if isinstance(emitter, str) else parse_list(emitter)
        addresses = [parse_address(emitter) for emitter in emitters] or None  # none given: any
        topics = [parse_topic(topic) for topic in parse_list(wanted.get("topics"))]
        logs = self._chain.logs(from_block=first, to_block=last, addresses=addresses, topics=topics)
        if len(logs) > LOGS_MAX:
            raise RpcError(LIMIT_EXCEEDED, f"query returned more than {LOGS_MAX} results")
        return [self._log(log) for log in logs]

    def _log(self, log: Log) -> dict[str, Any]:
        with self._chain.locked() as chain:
            _, index = chain.get_canonical_transaction_index(Hash32(log.tx_hash))
        return log_fields(log, index)
