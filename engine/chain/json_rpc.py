"""A chain behind a JSON-RPC endpoint (ethereum/execution-apis), its answers checked before use.

The endpoint is not trusted with our types, our range or our filter: an answer that is not what was
asked for is `ChainUnavailable`. `logs` alone cannot know that no event was left out: `block_logs`
holds all events of a block against its bloom, and an auditor compares two endpoints. Anvil, Geth,
the embedded chain's own port and hosted nodes all fit.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from engine.chain.bloom import bloom_of, is_dense
from engine.chain.gateway import (
    NO_SENDER,
    BlockHeader,
    CallReverted,
    ChainUnavailable,
    Log,
    Receipt,
    TopicFilter,
    TransactionRejected,
    check_succession,
    log_matches,
    revert_reason,
)
from engine.chain.json_rpc_answers import (
    as_count,
    as_data,
    as_hash,
    as_header,
    as_list,
    as_log,
    as_object,
    as_quantity,
    as_receipt,
)
from engine.chain.json_rpc_endpoint import AnswerTooLargeError, Endpoint, RpcError

TIP_WEI = 10**9
"""The priority fee where the endpoint does not suggest one."""

_NO_CODE = bytes.fromhex("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")
"""The Keccak-256 hash of nothing."""
_METHOD_NOT_FOUND = -32601
_REVERTED = 3
# Codes that speak of the endpoint and not of the transaction: internal error, resource unavailable,
# limit exceeded (EIP-1474), and what load balancers answer.
_ENDPOINT_CODES = frozenset({-32603, -32002, -32005, -32007, -32016, 429})
# Endpoints agree on no code for "ask for fewer blocks"; every known wording has one of these.
_TOO_MUCH = re.compile(
    r"(?i)range|too (many|large|wide)|more than|max(imum)? results|response size|limited to"
)
# A contract that ends without REVERT has no code of its own either.
_HALTED = re.compile(
    r"(?i)revert|out of ?gas|evm error|invalid ?(opcode|jump)|stack ?(under|over)flow"
)


class JsonRpcChain:
    """A `ChainGateway` over HTTP. Every method may be called from any thread.

    `timeout_s` bounds connecting and every wait for data, six times as much the whole exchange.
    With `expected_chain_id`, nothing is read from an endpoint that serves another chain.

    Raises:
        ChainError: `url` is not an http or https URL.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 10.0, expected_chain_id: int | None = None
    ) -> None:
        self._endpoint = Endpoint(url, timeout_s=timeout_s, expected_chain_id=expected_chain_id)

    @property
    def name(self) -> str:
        """The endpoint's URL without what may be secret in it."""
        return self._endpoint.name

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id. What is read is of this chain, or not believed.

        Raises:
            ChainChanged: it is not the expected one.
        """
        return self._endpoint.chain_id

    # Reading

    def head(self) -> BlockHeader:
        """See `ChainGateway.head`."""
        self._endpoint.confirm_chain()
        return as_header(self._endpoint.ask("eth_getBlockByNumber", "latest", False))

    def block(self, number: int) -> BlockHeader | None:
        """See `ChainGateway.block`."""
        answer = self._endpoint.ask("eth_getBlockByNumber", hex(number), False)
        if answer is None:
            return None
        header = as_header(answer)
        if header.number != number:
            raise self._endpoint.wrong(f"asked for block {number}, got {header.number}")
        return header

    def headers(self, first: int, last: int) -> list[BlockHeader]:
        """See `ChainGateway.headers`. Many are asked for in one request."""
        asked = [(hex(number), False) for number in range(first, last + 1)]
        answers = self._endpoint.ask_many("eth_getBlockByNumber", asked)
        headers = [as_header(answer) for answer in answers if answer is not None]
        check_succession(headers, first, last)
        return headers

    def block_logs(self, header: BlockHeader) -> list[Log]:
        """See `ChainGateway.block_logs`. If the events are not all, the receipts must have them.

        A bloom that is nearly full admits nearly everything and shows little. Then the receipts are
        asked first: the events come from an index that may lag behind.
        """
        block_hash = f"0x{header.hash.hex()}"
        found = []
        asks = (self._logs_of_block, self._logs_of_receipts)
        for ask in reversed(asks) if is_dense(header.logs_bloom) else asks:
            try:
                objects = ask(block_hash)
            except RpcError as error:
                found.append(str(error))
                continue
            if (logs := _whole(header, objects)) is not None:
                return logs
            found.append(f"{len(objects)} events")
        raise self._endpoint.wrong(
            f"nothing that it tells of block {header.number} makes up the block's bloom "
            f"({', '.join(found)})"
        )

    def _logs_of_block(self, block_hash: str) -> list[Any]:
        return as_list(self._endpoint.ask_raw("eth_getLogs", {"blockHash": block_hash}))

    def _logs_of_receipts(self, block_hash: str) -> list[Any]:
        receipts = as_list(self._endpoint.ask_raw("eth_getBlockReceipts", block_hash))
        return [log for receipt in receipts for log in as_list(as_object(receipt).get("logs"))]

    def logs(
        self,
        *,
        from_block: int,
        to_block: int,
        addresses: Collection[str] | None = None,
        topics: Sequence[TopicFilter] = (),
    ) -> list[Log]:
        """See `ChainGateway.logs`. A range that the endpoint finds too large is asked in halves."""
        nothing = [addresses, *(topic for topic in topics if not isinstance(topic, bytes))]
        if from_block > to_block or any(choice is not None and not choice for choice in nothing):
            return []  # to the endpoint an empty list would mean anything at all
        while topics and topics[-1] is None:  # Geth and Anvil disagree on what this would mean
            topics = topics[:-1]
        wanted: dict[str, Any] = {"topics": [_topic(topic) for topic in topics]}
        if addresses is not None:
            wanted["address"] = list(addresses)
        logs = [as_log(log) for log in self._log_objects(wanted, from_block, to_block)]
        places = [(log.block_number, log.log_index) for log in logs]
        if len(set(places)) != len(places):
            raise self._endpoint.wrong("the same log twice")
        for log in logs:
            if not from_block <= log.block_number <= to_block:
                raise self._endpoint.wrong(
                    f"a log of block {log.block_number}, which was not asked for"
                )
            if not log_matches(log, addresses, topics):
                raise self._endpoint.wrong("a log that does not match the filter")
        return sorted(logs, key=lambda log: (log.block_number, log.log_index))

    def _log_objects(self, wanted: dict[str, Any], first: int, last: int) -> list[Any]:
        asked = wanted | {"fromBlock": hex(first), "toBlock": hex(last)}
        try:
            return as_list(self._endpoint.ask_raw("eth_getLogs", asked))
        except RpcError as error:
            if not _TOO_MUCH.search(error.message):
                raise self._endpoint.unavailable(error) from error
            refusal: Exception = error
        except AnswerTooLargeError as error:
            refusal = error
        if first >= last:
            raise ChainUnavailable(
                f"the endpoint refuses to answer the events of one block ({first}): {refusal}; "
                "no smaller question can be asked, another endpoint is needed"
            ) from refusal
        middle = (first + last) // 2
        return self._log_objects(wanted, first, middle) + self._log_objects(
            wanted, middle + 1, last
        )

    def code(self, address: str) -> bytes:
        """See `ChainGateway.code`."""
        return as_data(self._endpoint.ask("eth_getCode", address, "latest"))

    def code_hashes(self, addresses: Sequence[str]) -> list[bytes]:
        """See `ChainGateway.code_hashes`; the code itself is not sent over the line."""
        message = {"from": NO_SENDER, "data": f"0x{asking_code_hashes(addresses).hex()}"}
        answer = as_data(self._endpoint.ask("eth_call", message, "latest"))
        if len(answer) != 32 * (1 + len(addresses)):
            raise self._endpoint.wrong(f"{len(answer)} bytes in place of {len(addresses)} hashes")
        return [_code_hash(answer[at : at + 32]) for at in range(32, len(answer), 32)]

    def balance(self, address: str) -> int:
        """See `ChainGateway.balance`."""
        return as_quantity(self._endpoint.ask("eth_getBalance", address, "latest"))

    def transaction_count(
        self, address: str, *, pending: bool = False, block: int | None = None
    ) -> int:
        """See `ChainGateway.transaction_count`."""
        newest = "pending" if pending else "latest"
        tag = newest if block is None else hex(block)
        return as_quantity(self._endpoint.ask("eth_getTransactionCount", address, tag))

    def fees(self) -> tuple[int, int]:
        """See `ChainGateway.fees`: twice the newest base fee, so that six full blocks still fit."""
        newest = as_object(self._endpoint.ask("eth_getBlockByNumber", "latest", False))
        base_fee = as_quantity(newest.get("baseFeePerGas"))
        try:
            tip = as_quantity(self._endpoint.ask_raw("eth_maxPriorityFeePerGas"))
        except RpcError as error:
            if error.code != _METHOD_NOT_FOUND:
                raise self._endpoint.unavailable(error) from error
            tip = TIP_WEI
        return 2 * base_fee + tip, tip

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """See `ChainGateway.receipt`."""
        answer = self._endpoint.ask("eth_getTransactionReceipt", f"0x{tx_hash.hex()}")
        if answer is None or as_object(answer).get("blockHash") is None:  # some show pending ones
            return None
        receipt = as_receipt(answer)
        if receipt.tx_hash != tx_hash:
            raise self._endpoint.wrong("the receipt of another transaction")
        return receipt

    # Executing and sending

    def call(
        self, to: str, data: bytes, *, block: int | None = None, sender: str = NO_SENDER
    ) -> bytes:
        """See `ChainGateway.call`."""
        message = {"from": sender, "to": to, "data": f"0x{data.hex()}"}
        at = "latest" if block is None else hex(block)
        try:
            return as_data(self._execute("eth_call", message, at))
        except RpcError as error:
            raise self._endpoint.unavailable(error) from error

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """See `ChainGateway.estimate_gas`."""
        message = {"from": sender, "data": f"0x{data.hex()}", "value": hex(value)}
        if to is not None:
            message["to"] = to
        try:
            return as_count(self._execute("eth_estimateGas", message))
        except RpcError as error:
            if error.code in _ENDPOINT_CODES:
                raise self._endpoint.unavailable(error) from error
            raise TransactionRejected(error.message) from error

    def _execute(self, method: str, *parameters: Any) -> Any:
        try:
            return self._endpoint.ask_raw(method, *parameters)
        except RpcError as error:
            data = _revert_data(error.data)
            if error.code == _REVERTED or data or _HALTED.search(error.message):
                reason = revert_reason(data or b"") or error.message
                raise CallReverted(data or b"", reason) from error
            raise

    def send_raw(self, raw: bytes) -> bytes:
        """See `ChainGateway.send_raw`."""
        from eth_utils.crypto import keccak

        tx_hash = keccak(raw)
        try:
            answered = as_hash(self._endpoint.ask_raw("eth_sendRawTransaction", f"0x{raw.hex()}"))
        except RpcError as error:
            if error.code in _ENDPOINT_CODES:
                raise self._endpoint.unavailable(error) from error
            # "already known" and "nonce too low" are also what the second sending of one
            # transaction gets: it was accepted if the endpoint knows it.
            if self._endpoint.ask("eth_getTransactionByHash", f"0x{tx_hash.hex()}") is None:
                raise TransactionRejected(error.message) from error
            return tx_hash
        if answered != tx_hash:
            raise self._endpoint.wrong("the hash of another transaction")
        return tx_hash

    def close(self) -> None:
        """See `ChainGateway.close`."""
        self._endpoint.close()


def asking_code_hashes(addresses: Sequence[str]) -> bytes:
    """Init code that returns a word of zeros and the EXTCODEHASH (EIP-1052) of each address.

    Without the zeros it could begin like no contract may (EIP-3541).
    """
    code = b"".join(
        b"\x73" + bytes.fromhex(address[2:]) + b"\x3f\x61" + (32 * at).to_bytes(2) + b"\x52"
        for at, address in enumerate(addresses, start=1)
    )
    return code + b"\x61" + (32 * (1 + len(addresses))).to_bytes(2) + b"\x5f\xf3"


def _code_hash(word: bytes) -> bytes:
    """An account without code has the hash of nothing, one that does not exist has zero."""
    return bytes(32) if word == _NO_CODE else word


def _whole(header: BlockHeader, objects: Sequence[Any]) -> list[Log] | None:
    """The events of a block, if they are all of it: each in its place, together its bloom."""
    logs = sorted((as_log(log) for log in objects), key=lambda log: log.log_index)
    if any((log.block_number, log.block_hash) != (header.number, header.hash) for log in logs):
        raise ChainUnavailable(f"an event of block {header.number} is of another block")
    in_place = [log.log_index for log in logs] == list(range(len(logs)))
    return logs if in_place and bloom_of(logs) == header.logs_bloom else None


def _topic(topic: TopicFilter) -> str | list[str] | None:
    if topic is None or isinstance(topic, bytes):
        return None if topic is None else f"0x{topic.hex()}"
    return [f"0x{alternative.hex()}" for alternative in topic]


def _revert_data(data: Any) -> bytes | None:
    """Revert data where Geth and Anvil put it, or one level deeper where some proxies do."""
    if isinstance(data, dict):
        data = data.get("data")
    try:
        return as_data(data)
    except ChainUnavailable:
        return None
