"""Reads an endpoint's JSON into the gateway's types (EIP-1474 encodings, execution-apis schemas).

Every function takes whatever JSON held and raises `ChainUnavailable` unless it has that very form.
"""

import re
from typing import Any

from engine.chain.gateway import BLOOM_BYTES, BlockHeader, ChainUnavailable, Log, Receipt

TOPICS_MAX = 4
LOGS_PER_RECEIPT_MAX = 100_000

_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")
_DATA = re.compile("0x(?:[0-9a-fA-F]{2})*")


def _wrong(what: str) -> ChainUnavailable:
    return ChainUnavailable(f"the endpoint answered with {what}")


def as_object(value: Any) -> dict[str, Any]:
    """Read a JSON object."""
    if not isinstance(value, dict):
        raise _wrong("something other than an object")
    return value


def as_list(value: Any) -> list[Any]:
    """Read a JSON array."""
    if not isinstance(value, list):
        raise _wrong("something other than a list")
    return value


def as_quantity(value: Any) -> int:
    """Read a number below 2^256."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise _wrong("something other than a quantity")
    return int(value, 16)


def as_count(value: Any) -> int:
    """Read a height, a time in seconds, an index or an amount of gas: a number below 2^63."""
    if (number := as_quantity(value)) >= 1 << 63:
        raise _wrong("a number beyond all bounds")
    return number


def as_data(value: Any) -> bytes:
    """Read bytes of any length."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise _wrong("something other than hexadecimal data")
    return bytes.fromhex(value[2:])


def as_hash(value: Any) -> bytes:
    """Read 32 bytes."""
    if len(data := as_data(value)) != 32:
        raise _wrong(f"{len(data)} bytes in place of a hash")
    return data


def as_bloom(value: Any) -> bytes:
    """Read a log bloom."""
    if len(data := as_data(value)) != BLOOM_BYTES:
        raise _wrong(f"{len(data)} bytes in place of a bloom")
    return data


def as_address(value: Any) -> str:
    """Read an address; returned in lower case."""
    if len(data := as_data(value)) != 20:
        raise _wrong(f"{len(data)} bytes in place of an address")
    return f"0x{data.hex()}"


def as_header(value: Any) -> BlockHeader:
    """Read a mined block."""
    fields = as_object(value)
    return BlockHeader(
        number=as_count(fields.get("number")),
        hash=as_hash(fields.get("hash")),
        parent_hash=as_hash(fields.get("parentHash")),
        timestamp_s=as_count(fields.get("timestamp")),
        logs_bloom=as_bloom(fields.get("logsBloom")),
    )


def as_log(value: Any) -> Log:
    """Read an event of the canonical chain; a removed one is refused."""
    fields = as_object(value)
    if fields.get("removed", False) is not False:
        raise _wrong("a removed log")
    topics = fields.get("topics")
    if not isinstance(topics, list) or len(topics) > TOPICS_MAX:
        raise _wrong(f"something other than up to {TOPICS_MAX} topics")
    return Log(
        address=as_address(fields.get("address")),
        topics=tuple(as_hash(topic) for topic in topics),
        data=as_data(fields.get("data")),
        block_number=as_count(fields.get("blockNumber")),
        block_hash=as_hash(fields.get("blockHash")),
        tx_hash=as_hash(fields.get("transactionHash")),
        log_index=as_count(fields.get("logIndex")),
    )


def as_receipt(value: Any) -> Receipt:
    """Read the receipt of a mined transaction, with logs that belong to it."""
    fields = as_object(value)
    status = as_quantity(fields.get("status"))
    created, logs, sender = fields.get("contractAddress"), fields.get("logs"), fields.get("from")
    if status > 1 or not isinstance(logs, list) or len(logs) > LOGS_PER_RECEIPT_MAX:
        raise _wrong("a receipt without a status or logs")
    receipt = Receipt(
        tx_hash=as_hash(fields.get("transactionHash")),
        block_number=as_count(fields.get("blockNumber")),
        block_hash=as_hash(fields.get("blockHash")),
        succeeded=status == 1,
        gas_used=as_count(fields.get("gasUsed")),
        contract_address=None if created is None else as_address(created),
        logs=tuple(as_log(log) for log in logs),
        sender=None if sender is None else as_address(sender),
    )
    place = (receipt.tx_hash, receipt.block_number, receipt.block_hash)
    if any((log.tx_hash, log.block_number, log.block_hash) != place for log in receipt.logs):
        raise _wrong("a receipt with the logs of another transaction")
    return receipt
