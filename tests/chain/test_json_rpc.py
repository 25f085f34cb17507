"""A lying, failing or slow endpoint: whatever it answers is `ChainUnavailable` or checked data."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.chain import json_rpc_endpoint
from engine.chain.gateway import CallReverted, ChainError, ChainUnavailable, TransactionRejected
from engine.chain.json_rpc import JsonRpcChain

ADDRESS = "0x" + "ab" * 20
OTHER = "0x" + "cd" * 20
HASH = "0x" + "11" * 32
TOPIC = b"\x22" * 32
RAW = bytes.fromhex("02c0")

BLOCK = {
    "number": "0x5",
    "hash": HASH,
    "parentHash": HASH,
    "timestamp": "0x64",
    "logsBloom": "0x" + "00" * 256,
}
LOG: dict[str, Any] = {
    "address": ADDRESS,
    "topics": ["0x" + TOPIC.hex()],
    "data": "0x",
    "blockNumber": "0x5",
    "blockHash": HASH,
    "transactionHash": HASH,
    "logIndex": "0x0",
    "removed": False,
}
RECEIPT = {
    "transactionHash": HASH,
    "blockNumber": "0x5",
    "blockHash": HASH,
    "status": "0x1",
    "gasUsed": "0x5208",
    "contractAddress": None,
    "logs": [LOG],
}


class Endpoint:
    """A JSON-RPC server that answers whatever a test wants, over a real socket."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {"eth_chainId": "0x1"}
        self.reply: Callable[[dict[str, Any]], tuple[int, bytes]] = self._honest
        self.asked: list[dict[str, Any]] = []

    def _honest(self, request: dict[str, Any]) -> tuple[int, bytes]:
        result = self.results[request["method"]]
        if callable(result):
            result = result(*request["params"])
        outcome = {"error": result["error"]} if _is_error(result) else {"result": result}
        return 200, json.dumps({"jsonrpc": "2.0", "id": request["id"]} | outcome).encode()


def _is_error(result: Any) -> bool:
    return isinstance(result, dict) and "error" in result


def _error(code: int, message: str, data: Any = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "data": data}}


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def url(endpoint: Endpoint) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.asked.append(request)
            status, body = endpoint.reply(request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def chain(url: str) -> Iterator[JsonRpcChain]:
    gateway = JsonRpcChain(url, timeout_s=5)
    yield gateway
    gateway.close()


# Transport


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (503, b""),
        (429, b'{"jsonrpc": "2.0", "id": 1, "result": "0x1"}'),
        (200, b""),
        (200, b"<html>hello</html>"),
        (404, b"<html>not here</html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"[" * 1_000_000),
        (200, b"{}"),
        (200, b'{"jsonrpc": "2.0", "id": 999, "result": "0x1"}'),
        (200, b'{"jsonrpc": "2.0", "id": 1}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "error": {}}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "error": {"code": "x", "message": 7}}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": "0x"}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": "0x-1"}'),
    ],
)
def test_an_answer_without_the_right_form_is_unavailable(
    endpoint: Endpoint, chain: JsonRpcChain, status: int, body: bytes
) -> None:
    endpoint.reply = lambda _: (status, body)
    with pytest.raises(ChainUnavailable):
        _ = chain.chain_id
    with pytest.raises(ChainUnavailable):
        chain.head()


def test_an_answer_that_never_ends_is_cut_off(
    endpoint: Endpoint, chain: JsonRpcChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rpc_endpoint, "ANSWER_MAX_BYTES", 1000)
    endpoint.reply = lambda _: (200, b'"' + b"x" * 2000 + b'"')
    with pytest.raises(ChainUnavailable, match="above 1000 bytes"):
        _ = chain.chain_id


def test_nobody_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    chain = JsonRpcChain(f"http://127.0.0.1:{port}")
    with pytest.raises(ChainUnavailable):
        chain.head()
    chain.close()


def test_silence_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        chain = JsonRpcChain(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
        with pytest.raises(ChainUnavailable, match="timed out"):
            chain.head()
        chain.close()


def test_the_wrong_chain_is_refused_before_anything_is_read(endpoint: Endpoint, url: str) -> None:
    chain = JsonRpcChain(url, expected_chain_id=8453)
    for _ in range(2):
        with pytest.raises(ChainError, match="serves chain 1, not 8453"):
            chain.balance(ADDRESS)
    assert {request["method"] for request in endpoint.asked} == {"eth_chainId"}
    chain.close()


@pytest.mark.parametrize("url", ["", "localhost:8545", "ftp://host/", "http://", "http://\0"])
def test_a_url_must_be_one(url: str) -> None:
    with pytest.raises(ChainError):
        JsonRpcChain(url)


def test_an_access_key_in_the_url_is_not_shown(endpoint: Endpoint, url: str) -> None:
    endpoint.reply = lambda _: (500, b"no")
    chain = JsonRpcChain(f"{url}/v2/SECRET?key=SECRET")
    with pytest.raises(ChainUnavailable) as caught:
        chain.head()
    assert "SECRET" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    chain.close()


# Blocks, receipts, logs


@pytest.mark.parametrize(
    "change",
    [
        {"number": "0x6"},
        {"number": None},
        {"number": "0x" + "f" * 20},
        {"hash": "0x11"},
        {"hash": None},
        {"parentHash": "0x" + "zz" * 32},
        {"timestamp": 100},
        {"logsBloom": None},
        {"logsBloom": "0x" + "00" * 255},
    ],
)
def test_a_wrong_block_is_refused(
    endpoint: Endpoint, chain: JsonRpcChain, change: dict[str, Any]
) -> None:
    endpoint.results["eth_getBlockByNumber"] = BLOCK
    assert chain.block(5) is not None
    endpoint.results["eth_getBlockByNumber"] = BLOCK | change
    with pytest.raises(ChainUnavailable):
        chain.block(5)


def test_blocks_are_asked_for_in_one_request_where_the_endpoint_takes_it(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_getBlockByNumber"] = chained
    taken = endpoint.reply

    def many(request: Any) -> tuple[int, bytes]:
        if not isinstance(request, list):
            return taken(request)
        return 200, b"[" + b",".join(taken(each)[1] for each in reversed(request)) + b"]"

    def none(request: Any) -> tuple[int, bytes]:
        return taken(request) if isinstance(request, dict) else (400, b"one at a time")

    for reply, requests in ((many, 1 + 3), (none, 250)):
        endpoint.reply, endpoint.asked = reply, []
        assert [header.number for header in chain.headers(1, 250)] == list(range(1, 251))
        assert len(endpoint.asked) <= requests + 3, "and the three that are not taken"


def chained(number: str, _full: bool) -> Any:
    """A block whose hash is its number."""
    at = int(number, 16)
    named = {"hash": f"0x{at:064x}", "parentHash": f"0x{at - 1:064x}"}
    return BLOCK | named | {"number": number}


@pytest.mark.parametrize("reply", [b"[]", b"{}", b"null", b"[null]", b'[{"id": 1, "result": 2}]'])
def test_many_answers_that_are_not_those_are_asked_for_one_by_one(
    endpoint: Endpoint, chain: JsonRpcChain, reply: bytes
) -> None:
    endpoint.results["eth_getBlockByNumber"] = chained
    honest = endpoint.reply
    endpoint.reply = lambda asked: honest(asked) if isinstance(asked, dict) else (200, reply)
    assert [header.number for header in chain.headers(1, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"transactionHash": "0x" + "12" * 32},
        {"blockHash": "0x" + "12" * 32},
        {"blockNumber": "0x6"},
        {"status": "0x2"},
        {"status": None},
        {"gasUsed": 21000},
        {"contractAddress": "0x"},
        {"logs": None},
        {"logs": [LOG | {"removed": True}]},
        {"logs": [LOG | {"transactionHash": "0x" + "12" * 32}]},
    ],
)
def test_a_wrong_receipt_is_refused(
    endpoint: Endpoint, chain: JsonRpcChain, change: dict[str, Any]
) -> None:
    endpoint.results["eth_getTransactionReceipt"] = RECEIPT
    tx_hash = bytes.fromhex(HASH[2:])
    assert chain.receipt(tx_hash) is not None
    endpoint.results["eth_getTransactionReceipt"] = RECEIPT | change
    with pytest.raises(ChainUnavailable):
        chain.receipt(tx_hash)


def test_a_receipt_without_a_block_is_not_there_yet(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_getTransactionReceipt"] = RECEIPT | {"blockHash": None}
    assert chain.receipt(bytes.fromhex(HASH[2:])) is None


@pytest.mark.parametrize(
    "logs",
    [
        None,
        {},
        [None],
        [LOG | {"removed": True}],
        [LOG | {"removed": "no"}],
        [LOG | {"blockNumber": "0x3"}],
        [LOG | {"blockNumber": "0x8"}],
        [LOG | {"blockNumber": None}],
        [LOG | {"address": OTHER}],
        [LOG | {"topics": [HASH]}],
        [LOG | {"topics": []}],
        [LOG | {"topics": LOG["topics"] * 5}],
        [LOG | {"topics": ["0x22"]}],
        [LOG | {"data": "0x1"}],
        [LOG | {"logIndex": "0x" + "f" * 64}],
        [LOG, LOG],
    ],
)
def test_wrong_logs_are_refused(endpoint: Endpoint, chain: JsonRpcChain, logs: Any) -> None:
    def ask() -> int:
        return len(chain.logs(from_block=4, to_block=7, addresses=[ADDRESS], topics=[TOPIC]))

    endpoint.results["eth_getLogs"] = [LOG]
    assert ask() == 1
    endpoint.results["eth_getLogs"] = logs
    with pytest.raises(ChainUnavailable):
        ask()


def test_logs_are_put_in_order_and_in_lower_case(endpoint: Endpoint, chain: JsonRpcChain) -> None:
    endpoint.results["eth_getLogs"] = [
        LOG | {"blockNumber": "0x6", "address": ADDRESS.upper().replace("X", "x")},
        LOG | {"logIndex": "0x1"},
        LOG,
    ]
    logs = chain.logs(from_block=0, to_block=9, addresses=[ADDRESS])
    assert [(log.block_number, log.log_index) for log in logs] == [(5, 0), (5, 1), (6, 0)]
    assert {log.address for log in logs} == {ADDRESS}


@pytest.mark.parametrize(
    "message",
    [
        "query returned more than 10000 results",
        "Log response size exceeded.",
        "eth_getLogs is limited to a 10,000 range",
        "block range is too wide",
        "query exceeds max results 20000",
        "requested too many blocks from 0 to 99, maximum is set to 10",
    ],
)
def test_a_range_that_is_too_large_is_asked_in_halves(
    endpoint: Endpoint, chain: JsonRpcChain, message: str
) -> None:
    def logs(wanted: dict[str, Any]) -> Any:
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        if last - first >= 10:
            return _error(-32005, message)
        return [LOG | {"blockNumber": hex(number)} for number in range(first, last + 1)]

    endpoint.results["eth_getLogs"] = logs
    found = chain.logs(from_block=0, to_block=99)
    assert [log.block_number for log in found] == list(range(100))


def test_a_single_block_that_is_too_large_is_unavailable(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_getLogs"] = lambda _: _error(-32005, "too many results")
    with pytest.raises(ChainUnavailable, match="too many results"):
        chain.logs(from_block=0, to_block=1 << 20)
    assert len(endpoint.asked) < 30


def test_a_rate_limit_is_not_answered_with_more_requests(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_getLogs"] = _error(-32005, "daily request count exceeded")
    with pytest.raises(ChainUnavailable):
        chain.logs(from_block=0, to_block=99)
    assert len(endpoint.asked) == 2


# Executing and sending


@pytest.mark.parametrize(
    ("error", "data", "reason"),
    [
        (_error(3, "execution reverted", "0xdeadbeef"), b"\xde\xad\xbe\xef", "error 0xdeadbeef"),
        (_error(-32000, "execution reverted: no"), b"", "execution reverted: no"),
        (_error(-32015, "VM error", {"data": "0xdeadbeef"}), b"\xde\xad\xbe\xef", "error 0xdead"),
        (_error(3, "execution reverted", "0xnonsense"), b"", "execution reverted"),
        (_error(-32000, "invalid opcode: INVALID"), b"", "invalid opcode"),
        (_error(-32000, "out of gas"), b"", "out of gas"),
    ],
)
def test_reverts_of_many_endpoints_are_understood(
    endpoint: Endpoint, chain: JsonRpcChain, error: Any, data: bytes, reason: str
) -> None:
    endpoint.results["eth_call"] = endpoint.results["eth_estimateGas"] = error
    for ask in (
        lambda: chain.call(ADDRESS, b""),
        lambda: chain.estimate_gas(sender=ADDRESS, to=None, data=b""),
    ):
        with pytest.raises(CallReverted) as caught:
            ask()
        assert caught.value.data == data
        assert caught.value.reason.startswith(reason)


def test_state_that_the_endpoint_has_not_got_is_no_revert(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_call"] = _error(-32000, "missing trie node 1234")
    with pytest.raises(ChainUnavailable, match="missing trie node"):
        chain.call(ADDRESS, b"", block=1)


def test_a_refused_transaction_that_the_endpoint_knows_was_accepted(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_sendRawTransaction"] = _error(-32000, "already known")
    endpoint.results["eth_getTransactionByHash"] = {"hash": "0x"}
    assert len(chain.send_raw(RAW)) == 32
    endpoint.results["eth_getTransactionByHash"] = None
    with pytest.raises(TransactionRejected, match="already known"):
        chain.send_raw(RAW)


@pytest.mark.parametrize(
    "answer", [_error(-32603, "internal"), _error(-32005, "limit"), HASH, None, "0x"]
)
def test_a_doubtful_answer_to_a_transaction_is_not_a_refusal(
    endpoint: Endpoint, chain: JsonRpcChain, answer: Any
) -> None:
    endpoint.results["eth_sendRawTransaction"] = answer
    with pytest.raises(ChainUnavailable):
        chain.send_raw(RAW)


def test_fees_without_a_suggestion_have_a_default_tip(
    endpoint: Endpoint, chain: JsonRpcChain
) -> None:
    endpoint.results["eth_getBlockByNumber"] = BLOCK | {"baseFeePerGas": "0x64"}
    endpoint.results["eth_maxPriorityFeePerGas"] = _error(-32601, "no such method")
    assert chain.fees() == (200 + 10**9, 10**9)
    endpoint.results["eth_maxPriorityFeePerGas"] = "0x7"
    assert chain.fees() == (207, 7)
    endpoint.results["eth_getBlockByNumber"] = BLOCK
    with pytest.raises(ChainUnavailable):
        chain.fees()
