"""A chain behind a JSON-RPC endpoint (ethereum/execution-apis), its answers checked before use.

The endpoint is not trusted with our types, our range or our filter: an answer that is not what was
asked for is `ChainUnavailable`. It *is* trusted not to leave events out; comparing two endpoints is
how an auditor checks that. Anvil, Geth, the embedded chain's own port and hosted nodes all fit.
"""

import itertools
import json
import re
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import httpx

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
    log_matches,
    revert_reason,
)
from engine.chain.json_rpc_answers import (
    as_count,
    as_data,
    as_hash,
    as_header,
    as_log,
    as_object,
    as_quantity,
    as_receipt,
)

ANSWER_MAX_BYTES = 64 << 20
TIP_WEI = 10**9
"""The priority fee where the endpoint does not suggest one."""

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


class _RpcError(Exception):
    """The endpoint answered with an error object."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        code, message = error.get("code"), error.get("message")
        self.code = code if isinstance(code, int) else 0
        self.message = message if isinstance(message, str) else ""
        self.data = error.get("data")
        super().__init__(f"{method}: {self.message} ({self.code})")


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
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ChainError(f"not a URL: {error}") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ChainError("a chain's URL begins with http:// or https:// and names a host")
        # What may be shown: a hosted endpoint's path and query hold its access key.
        port = f":{self._url.port}" if self._url.port else ""
        self._shown_url = f"{self._url.scheme}://{self._url.host}{port}"
        self._exchange_timeout_s = 6 * timeout_s
        self._expected_chain_id = expected_chain_id
        self._chain_id: int | None = None
        self._identifiers = itertools.count(1)
        self._lock = threading.Lock()
        self._http = httpx.Client(timeout=timeout_s, headers={"Accept": "application/json"})

    @property
    def name(self) -> str:
        """The endpoint's URL without what may be secret in it."""
        return self._shown_url

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id, asked for once.

        Raises:
            ChainError: it is not the expected one.
        """
        with self._lock:
            if self._chain_id is None:
                try:
                    found = as_quantity(self._exchange("eth_chainId", []))
                except _RpcError as error:
                    raise self._unavailable(error) from error
                if self._expected_chain_id not in (None, found):
                    raise ChainError(
                        f"{self._shown_url} serves chain {found}, not {self._expected_chain_id}"
                    )
                self._chain_id = found
            return self._chain_id

    # Transport

    def _ask(self, method: str, *parameters: Any) -> Any:
        """Return the result of one call to the right chain; errors become ours."""
        try:
            return self._ask_raw(method, *parameters)
        except _RpcError as error:
            raise self._unavailable(error) from error

    def _ask_raw(self, method: str, *parameters: Any) -> Any:
        if self._chain_id is None:
            _ = self.chain_id
        return self._exchange(method, list(parameters))

    def _exchange(self, method: str, parameters: list[Any]) -> Any:
        identifier = next(self._identifiers)
        request = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": parameters}
        try:
            reply = json.loads(self._post(json.dumps(request).encode()))
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed, or JSON too deep
            cause = str(error) or type(error).__name__
            raise ChainUnavailable(f"{self._shown_url}: {method}: {cause}") from error
        except ValueError as error:
            raise ChainUnavailable(f"{self._shown_url}: {method}: not a JSON answer") from error
        answer = as_object(reply)
        if isinstance(answer.get("error"), dict):
            raise _RpcError(method, answer["error"])
        if answer.get("id") != identifier or "result" not in answer:
            raise ChainUnavailable(f"{self._shown_url}: {method}: not an answer to this request")
        return answer["result"]

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            received = bytearray()
            deadline = time.monotonic() + self._exchange_timeout_s
            for part in response.iter_bytes():
                received += part
                if len(received) > ANSWER_MAX_BYTES:
                    raise httpx.DecodingError(f"answer above {ANSWER_MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer came too slowly")
        # Some nodes send JSON-RPC errors with a 4xx; an error without such a body has no meaning.
        if response.status_code == 429 or response.status_code >= 500 or not received:
            raise httpx.DecodingError(f"HTTP status {response.status_code}")
        return bytes(received)

    # Reading

    def head(self) -> BlockHeader:
        """See `ChainGateway.head`."""
        return as_header(self._ask("eth_getBlockByNumber", "latest", False))

    def block(self, number: int) -> BlockHeader | None:
        """See `ChainGateway.block`."""
        answer = self._ask("eth_getBlockByNumber", hex(number), False)
        if answer is None:
            return None
        header = as_header(answer)
        if header.number != number:
            self._distrust(f"asked for block {number}, got {header.number}")
        return header

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
            self._distrust("the same log twice")
        for log in logs:
            if not from_block <= log.block_number <= to_block:
                self._distrust(f"a log of block {log.block_number}, which was not asked for")
            if not log_matches(log, addresses, topics):
                self._distrust("a log that does not match the filter")
        return sorted(logs, key=lambda log: (log.block_number, log.log_index))

    def _log_objects(self, wanted: dict[str, Any], first: int, last: int) -> list[Any]:
        try:
            answer = self._ask_raw(
                "eth_getLogs", wanted | {"fromBlock": hex(first), "toBlock": hex(last)}
            )
        except _RpcError as error:
            if first >= last or not _TOO_MUCH.search(error.message):
                raise self._unavailable(error) from error
            middle = (first + last) // 2
            return self._log_objects(wanted, first, middle) + self._log_objects(
                wanted, middle + 1, last
            )
        if not isinstance(answer, list):
            self._distrust("logs that are not a list")
        return answer

    def code(self, address: str) -> bytes:
        """See `ChainGateway.code`."""
        return as_data(self._ask("eth_getCode", address, "latest"))

    def balance(self, address: str) -> int:
        """See `ChainGateway.balance`."""
        return as_quantity(self._ask("eth_getBalance", address, "latest"))

    def transaction_count(
        self, address: str, *, pending: bool = False, block: int | None = None
    ) -> int:
        """See `ChainGateway.transaction_count`."""
        newest = "pending" if pending else "latest"
        tag = newest if block is None else hex(block)
        return as_quantity(self._ask("eth_getTransactionCount", address, tag))

    def fees(self) -> tuple[int, int]:
        """See `ChainGateway.fees`: twice the newest base fee, so that six full blocks still fit."""
        newest = as_object(self._ask("eth_getBlockByNumber", "latest", False))
        base_fee = as_quantity(newest.get("baseFeePerGas"))
        try:
            tip = as_quantity(self._ask_raw("eth_maxPriorityFeePerGas"))
        except _RpcError as error:
            if error.code != _METHOD_NOT_FOUND:
                raise self._unavailable(error) from error
            tip = TIP_WEI
        return 2 * base_fee + tip, tip

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """See `ChainGateway.receipt`."""
        answer = self._ask("eth_getTransactionReceipt", f"0x{tx_hash.hex()}")
        if answer is None or as_object(answer).get("blockHash") is None:  # some show pending ones
            return None
        receipt = as_receipt(answer)
        if receipt.tx_hash != tx_hash:
            self._distrust("the receipt of another transaction")
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
        except _RpcError as error:
            raise self._unavailable(error) from error

    def estimate_gas(self, *, sender: str, to: str | None, data: bytes, value: int = 0) -> int:
        """See `ChainGateway.estimate_gas`."""
        message = {"from": sender, "data": f"0x{data.hex()}", "value": hex(value)}
        if to is not None:
            message["to"] = to
        try:
            return as_count(self._execute("eth_estimateGas", message))
        except _RpcError as error:
            if error.code in _ENDPOINT_CODES:
                raise self._unavailable(error) from error
            raise TransactionRejected(error.message) from error

    def _execute(self, method: str, *parameters: Any) -> Any:
        try:
            return self._ask_raw(method, *parameters)
        except _RpcError as error:
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
            answered = as_hash(self._ask_raw("eth_sendRawTransaction", f"0x{raw.hex()}"))
        except _RpcError as error:
            if error.code in _ENDPOINT_CODES:
                raise self._unavailable(error) from error
            # "already known" and "nonce too low" are also what the second sending of one
            # transaction gets: it was accepted if the endpoint knows it.
            if self._ask("eth_getTransactionByHash", f"0x{tx_hash.hex()}") is None:
                raise TransactionRejected(error.message) from error
            return tx_hash
        if answered != tx_hash:
            self._distrust("the hash of another transaction")
        return tx_hash

    def close(self) -> None:
        """See `ChainGateway.close`."""
        self._http.close()

    def _unavailable(self, error: _RpcError) -> ChainUnavailable:
        return ChainUnavailable(f"{self._shown_url}: {error}")

    def _distrust(self, what: str) -> NoReturn:
        raise ChainUnavailable(f"{self._shown_url} answered wrongly: {what}")


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
