"""How JSON-RPC values of the embedded chain are written and read (EIP-1474, execution-apis).

A quantity is minimal hexadecimal, data is even-length hexadecimal, both behind `0x`. Every function
that reads a parameter raises `RpcError` when it has not got its form.
"""

import re
from typing import Any

from eth.abc import BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI

from engine.chain.gateway import NO_SENDER, Log, TopicFilter

INVALID_PARAMS = -32602
LIMIT_EXCEEDED = -32005
METHOD_NOT_FOUND = -32601

LIST_MAX = 1000

Parameters = list[Any]

_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")


class RpcError(Exception):
    """An answer that is an error: `code` of JSON-RPC 2.0 section 5.1 or EIP-1474."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def quantity(value: int) -> str:
    """Write a number."""
    return hex(value)


def to_data(value: bytes) -> str:
    """Write bytes."""
    return f"0x{value.hex()}"


def bloom(of: BlockHeaderAPI | ReceiptAPI) -> str:
    """Write the log bloom of a block or of a transaction."""
    return to_data(of.bloom.to_bytes(256))


def base_fee(header: BlockHeaderAPI) -> str:
    """Write a block's base fee."""
    assert header.base_fee_per_gas is not None, "every fork since London has one"
    return quantity(header.base_fee_per_gas)


def header_fields(header: BlockHeaderAPI) -> dict[str, Any]:
    """Write a header, as part of a block."""
    fields: Any = header  # py-evm types only what the oldest fork had
    return {
        "number": quantity(header.block_number),
        "hash": to_data(header.hash),
        "parentHash": to_data(header.parent_hash),
        "nonce": to_data(header.nonce),
        "sha3Uncles": to_data(header.uncles_hash),
        "logsBloom": bloom(header),
        "transactionsRoot": to_data(header.transaction_root),
        "stateRoot": to_data(header.state_root),
        "receiptsRoot": to_data(header.receipt_root),
        "miner": to_data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "extraData": to_data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "mixHash": to_data(header.mix_hash),
        "baseFeePerGas": base_fee(header),
        "withdrawalsRoot": to_data(fields.withdrawals_root),
        "blobGasUsed": quantity(fields.blob_gas_used),
        "excessBlobGas": quantity(fields.excess_blob_gas),
        "parentBeaconBlockRoot": to_data(fields.parent_beacon_block_root),
        "requestsHash": to_data(fields.requests_hash),
    }


def transaction_fields(
    transaction: SignedTransactionAPI, header: BlockHeaderAPI, index: int
) -> dict[str, Any]:
    """Write a mined transaction."""
    raw = transaction.encode()
    typed = raw[0] if raw[0] < 0x80 else 0  # EIP-2718: a legacy transaction is a bare RLP list
    base_fee = header.base_fee_per_gas or 0
    fields: dict[str, Any] = {
        "type": quantity(typed),
        "hash": to_data(transaction.hash),
        "blockHash": to_data(header.hash),
        "blockNumber": quantity(header.block_number),
        "transactionIndex": quantity(index),
        "from": to_data(transaction.sender),
        "to": to_data(transaction.to) if transaction.to else None,
        "nonce": quantity(transaction.nonce),
        "gas": quantity(transaction.gas),
        "gasPrice": quantity(
            min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base_fee)
        ),
        "value": quantity(transaction.value),
        "input": to_data(transaction.data),
        "chainId": None if transaction.chain_id is None else quantity(transaction.chain_id),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }
    if not typed:
        legacy: Any = transaction
        return fields | {"v": quantity(legacy.v)}
    fields["v"] = fields["yParity"] = quantity(transaction.y_parity)
    fields["accessList"] = [
        {"address": to_data(address), "storageKeys": [to_data(key.to_bytes(32)) for key in keys]}
        for address, keys in transaction.access_list
    ]
    if typed >= 2:  # EIP-1559 and later
        fields["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
    return fields


def log_fields(log: Log, transaction_index: int) -> dict[str, Any]:
    """Write an event."""
    return {
        "address": log.address,
        "topics": [to_data(topic) for topic in log.topics],
        "data": to_data(log.data),
        "blockNumber": quantity(log.block_number),
        "blockHash": to_data(log.block_hash),
        "transactionHash": to_data(log.tx_hash),
        "transactionIndex": quantity(transaction_index),
        "logIndex": quantity(log.log_index),
        "removed": False,
    }


def required(parameters: Parameters, index: int) -> Any:
    """The parameter, which must be there."""
    if len(parameters) <= index:
        raise RpcError(INVALID_PARAMS, f"parameter {index} is missing")
    return parameters[index]


def optional(parameters: Parameters, index: int) -> Any:
    """The parameter, or None."""
    return parameters[index] if len(parameters) > index else None


def parse_quantity(value: Any) -> int:
    """Read a number below 2^256."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise RpcError(INVALID_PARAMS, "not a quantity")


def parse_list(value: Any) -> list[Any]:
    """Read an array that may be absent and is not very long."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > LIST_MAX:
        raise RpcError(INVALID_PARAMS, f"not an array of up to {LIST_MAX} values")
    return value


def parse_data(value: Any, size: int | None = None) -> bytes:
    """Read bytes, of `size` if given."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = b""
        if 2 * len(data) == len(value) - 2 and size in (None, len(data)):
            return data
    raise RpcError(INVALID_PARAMS, "not hexadecimal data" + (f" of {size} bytes" if size else ""))


def bytes_parameter(parameters: Parameters, index: int, size: int | None = None) -> bytes:
    """The parameter as bytes."""
    return parse_data(required(parameters, index), size)


def address_parameter(parameters: Parameters, index: int) -> Any:
    """The parameter as the 20 bytes of an address."""
    return bytes_parameter(parameters, index, 20)


def parse_address(address: Any) -> str:
    """Read an address, lower-case."""
    return to_data(parse_data(address, 20))


def parse_topic(topic: Any) -> TopicFilter:
    """Read one position of a topic filter."""
    if isinstance(topic, list):
        return [parse_data(alternative, 32) for alternative in parse_list(topic)] or None
    return None if topic is None else parse_data(topic, 32)


def message_parameter(parameters: Parameters) -> dict[str, Any]:
    """Read a call or transaction object into the arguments of `EmbeddedChain.simulate`."""
    message = required(parameters, 0)
    if not isinstance(message, dict):
        raise RpcError(INVALID_PARAMS, "the transaction is not an object")
    to, sender, gas = message.get("to"), message.get("from"), message.get("gas")
    data = message.get("input", message.get("data"))
    return {
        "sender": NO_SENDER if sender is None else parse_address(sender),
        "to": None if to is None else parse_address(to),
        "data": b"" if data is None else parse_data(data),
        "value": parse_quantity(message.get("value", "0x0")),
        "gas": None if gas is None else parse_quantity(gas),
    }
