"""The embedded chain's RPC port: the protocol, its guards, and the tools that must work with it."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from web3 import HTTPProvider, Web3

from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import BATCH_MAX, BODY_MAX_BYTES, EmbeddedRpc
from engine.chain.embedded_rpc_methods import LOGS_MAX
from engine.chain.gateway import ChainError, Receipt
from engine.chain.json_rpc import JsonRpcChain
from engine.chain.sender import send, sign
from tests.chain.bytecode import EVENT, INIT, RUNTIME, echo, emit, revert

NOBODY = "0x" + "ab" * 20
CONTRACTS = Path(__file__).parents[2] / "contracts"


@dataclass
class Served:
    """A chain with one contract and one event, and a client of its port."""

    chain: EmbeddedChain
    contract: str
    emitted: Receipt
    url: str
    http: httpx.Client

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """Send a body, as JSON unless it is bytes already."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(
            self.url, content=content, headers={"Content-Type": "application/json"} | headers
        )

    def ask(self, method: str, *parameters: Any) -> Any:
        """Return the whole answer to one call."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        return self.post(request).json()

    def result(self, method: str, *parameters: Any) -> Any:
        """Return the result of one call that must succeed."""
        return self.ask(method, *parameters)["result"]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    chain = EmbeddedChain(None)
    created = chain.receipt(send(chain, chain.faucet, to=None, data=INIT))
    assert created is not None
    assert created.contract_address is not None
    contract = created.contract_address
    emitted = chain.receipt(send(chain, chain.faucet, to=contract, data=emit(b"notch")))
    assert emitted is not None
    with EmbeddedRpc(chain, port=0) as rpc, httpx.Client() as http:
        yield Served(chain, contract, emitted, rpc.url, http)
    chain.close()


# The protocol


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b'{"id": 1, "method": "eth_chainId"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "eth_chainId"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "eth_chainId"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_nothing"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": {}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [7]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance"}', -32602),
    ],
)
def test_a_wrong_request_gets_the_right_code(served: Served, body: bytes, code: int) -> None:
    response = served.post(body)
    assert response.status_code == 200
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("eth_getBalance", ["0x12"]),
        ("eth_getBalance", [NOBODY, "0x"]),
        ("eth_getBalance", [NOBODY, "0xffff"]),
        ("eth_getBalance", [NOBODY, {"blockHash": "0x" + "00" * 32}]),
        ("eth_getBlockByNumber", ["newest"]),
        ("eth_getBlockByNumber", [12]),
        ("eth_getBlockByNumber", ["0x" + "f" * 65]),
        ("eth_getBlockByHash", ["0x" + "00" * 31]),
        ("eth_getTransactionReceipt", ["0x0g" + "0" * 62]),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x1"}]),
        ("eth_getLogs", [{"topics": ["0x12"]}]),
        ("eth_getLogs", [{"address": ["0x12"]}]),
        ("eth_call", [{"to": NOBODY, "data": "0x1"}]),
        ("eth_call", [{"to": NOBODY}, "latest", {NOBODY: {"balance": "0x1"}}]),
        ("eth_feeHistory", ["0x1"]),
    ],
)
def test_wrong_parameters_are_named_so(served: Served, method: str, parameters: list[Any]) -> None:
    assert served.ask(method, *parameters)["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("eth_getLogs", [{"topics": 7}]),
        ("eth_getLogs", [{"address": 7}]),
        ("eth_getLogs", [{"address": [NOBODY] * 1001}]),
        ("eth_getLogs", [{"address": {"a": 1}}]),
        ("eth_feeHistory", ["0x1", "latest", 7]),
        ("eth_feeHistory", ["0x0", "latest"]),
        ("eth_getBalance", [None]),
        ("eth_getBlockByNumber", [{"blockNumber": "0x1"}]),
        ("eth_getBalance", [NOBODY, {"blockNumber": {}}]),
        ("eth_sendRawTransaction", [7]),
        ("eth_call", [{"to": NOBODY, "value": 7}]),
    ],
)
def test_wrong_types_are_wrong_parameters_too(
    served: Served, method: str, parameters: list[Any]
) -> None:
    assert served.ask(method, *parameters)["error"]["code"] == -32602


def test_a_batch_is_answered_in_order_without_its_notifications(served: Served) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_nothing"},
        3,
    ]
    first, second, third = served.post(batch).json()
    assert first == {"jsonrpc": "2.0", "id": "a", "result": hex(served.chain.chain_id)}
    assert (second["id"], second["error"]["code"]) == (2, -32601)
    assert (third["id"], third["error"]["code"]) == (None, -32600)
    only_notifications = served.post([batch[1]])
    assert (only_notifications.status_code, only_notifications.content) == (204, b"")
    assert served.post([batch[0]] * (BATCH_MAX + 1)).json()["error"]["code"] == -32600


def test_a_revert_is_code_3_with_its_data(served: Served) -> None:
    message = {"to": served.contract, "input": f"0x{revert(b'oops!').hex()}"}
    for method in ("eth_call", "eth_estimateGas"):
        error = served.ask(method, message)["error"]
        assert (error["code"], error["data"]) == (3, "0x6f6f707321")


def test_a_rejected_transaction_says_why(served: Served) -> None:
    error = served.ask("eth_sendRawTransaction", "0x02c0")["error"]
    assert error["code"] == -32003
    assert "not a signed transaction" in error["message"]


# Its guards


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8545", "127.0.0.1.evil.example", ""]
)
def test_a_host_that_is_not_loopback_is_forbidden(served: Served, host: str) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    assert served.post(request, Host=host).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8545", "[::1]:8545"])
def test_a_loopback_host_is_served(served: Served, host: str) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    assert served.post(request, Host=host).status_code == 200


def test_only_json_that_is_posted_and_not_too_long_is_read(served: Served) -> None:
    assert served.post(b"{}", **{"Content-Type": "text/plain"}).status_code == 415
    assert served.http.get(served.url).status_code == 405
    assert served.http.options(served.url).status_code == 405
    longest = b'"' + b"x" * (BODY_MAX_BYTES - 2) + b'"'
    assert served.post(longest).json()["error"]["code"] == -32600
    assert served.post(b" " + longest).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b"{}"

    chunked = served.http.post(
        served.url, content=chunks(), headers={"Content-Type": "application/json"}
    )
    assert chunked.status_code == 411


def test_a_taken_port_is_an_error(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(ChainError, match="cannot listen"):
        EmbeddedRpc(served.chain, port=port).start()


def test_stopping_drops_clients_and_frees_the_port() -> None:
    chain = EmbeddedChain(None)
    rpc = EmbeddedRpc(chain, port=0).start()
    client = JsonRpcChain(rpc.url)
    assert client.head() == chain.head()
    port = int(rpc.url.rpartition(":")[2])
    rpc.stop()
    rpc.stop()
    with pytest.raises(ChainError):
        client.head()
    with EmbeddedRpc(chain, port=port):
        assert client.head() == chain.head()
    client.close()
    chain.close()


# What is answered


def test_a_block_has_the_fields_of_the_specification(served: Served) -> None:
    number = served.emitted.block_number
    block = served.result("eth_getBlockByNumber", hex(number), False)
    assert block == served.result("eth_getBlockByHash", block["hash"])
    assert block["transactions"] == [f"0x{served.emitted.tx_hash.hex()}"]
    assert int(block["gasUsed"], 16) == served.emitted.gas_used
    full = served.result("eth_getBlockByNumber", hex(number), True)
    transaction = served.result("eth_getTransactionByHash", block["transactions"][0])
    assert full["transactions"] == [transaction]
    assert transaction["input"] == f"0x{emit(b'notch').hex()}"
    assert transaction["from"] == served.chain.faucet.address.lower()
    assert served.result("eth_getBlockByNumber", "0xffffff", False) is None
    assert served.result("eth_getBlockByHash", "0x" + "00" * 32, False) is None
    assert served.result("eth_getBlockByNumber", "earliest", False)["number"] == "0x0"


def test_state_is_answered_as_of_any_block(served: Served) -> None:
    faucet = served.chain.faucet.address
    assert served.result("eth_getTransactionCount", faucet, "earliest") == "0x0"
    assert served.result("eth_getTransactionCount", faucet, {"blockNumber": "0x1"}) == "0x1"
    genesis = served.result("eth_getBlockByNumber", "0x0", False)["hash"]
    assert served.result("eth_getCode", served.contract, {"blockHash": genesis}) == "0x"
    assert served.result("eth_getCode", served.contract, "pending") == f"0x{RUNTIME.hex()}"


def test_logs_by_block_hash_and_nested_topics(served: Served) -> None:
    block_hash = f"0x{served.emitted.block_hash.hex()}"
    (log,) = served.result("eth_getLogs", {"blockHash": block_hash})
    topic = f"0x{EVENT.hex()}"
    wanted = {"fromBlock": "earliest", "address": served.contract}
    assert served.result("eth_getLogs", wanted | {"topics": [[topic, block_hash]]}) == [log]
    assert served.result("eth_getLogs", wanted | {"topics": [[], None]}) == [log]
    assert served.result("eth_getLogs", wanted | {"topics": [[block_hash]]}) == []
    assert served.result("eth_getLogs", wanted | {"address": [NOBODY]}) == []
    assert served.result("eth_getLogs", wanted | {"toBlock": "0x" + "f" * 64}) == [log]


def test_too_many_logs_are_fetched_in_halves() -> None:
    """The port limits how many logs it answers with; the client asks for fewer blocks."""
    chain = EmbeddedChain(None, clock=lambda: 0)
    # PUSH1 120, JUMPDEST, LOG0(0, 0), subtract 1, jump back unless 0, STOP
    loop = bytes.fromhex("60785b60006000a0600190038060025700")
    for _ in range(LOGS_MAX // 120 + 1):
        send(chain, chain.faucet, to=None, data=loop)
    head = chain.head().number
    with EmbeddedRpc(chain, port=0) as rpc:
        client = JsonRpcChain(rpc.url)
        everything = chain.logs(from_block=0, to_block=head)
        assert len(everything) > LOGS_MAX
        assert client.logs(from_block=0, to_block=head) == everything
        client.close()
    chain.close()


# The tools


def test_web3_reads_and_sends(served: Served) -> None:
    w3 = Web3(HTTPProvider(served.url))
    assert w3.is_connected()
    assert w3.eth.chain_id == served.chain.chain_id
    contract = Web3.to_checksum_address(served.contract)
    (log,) = w3.eth.get_logs({"fromBlock": 0, "address": contract, "topics": [EVENT]})  # type: ignore[list-item]
    assert bytes(log["data"]) == b"notch"
    assert bytes(w3.eth.call({"to": contract, "data": echo(b"hello")})) == b"hello"
    signed = sign(served.chain, served.chain.faucet, to=NOBODY, data=b"", value=5)
    receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(signed.raw))
    assert receipt["status"] == 1
    assert w3.eth.get_transaction(receipt["transactionHash"])["value"] == 5
    assert w3.eth.get_block(receipt["blockNumber"], full_transactions=True)["hash"]
    assert w3.eth.fee_history(2, "latest", [50])["reward"]
    assert w3.eth.gas_price > 0


def _cast(served: Served, *arguments: str) -> str:
    (binary,) = CONTRACTS.glob("node_modules/@foundry-rs/cast-*/bin/cast")
    command = [str(binary), *arguments, "--rpc-url", served.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cast_reads(served: Served) -> None:
    assert _cast(served, "block-number") == str(served.chain.head().number)
    assert _cast(served, "chain-id") == str(served.chain.chain_id)
    called = _cast(served, "call", served.contract, "--data", f"0x{echo(b'cast').hex()}")
    assert called == f"0x{b'cast'.hex()}"
    logs = json.loads(_cast(served, "logs", "--from-block", "0", f"0x{EVENT.hex()}", "--json"))
    assert [log["data"] for log in logs] == [f"0x{b'notch'.hex()}"]
    receipt = json.loads(_cast(served, "receipt", f"0x{served.emitted.tx_hash.hex()}", "--json"))
    assert int(receipt["gasUsed"], 16) == served.emitted.gas_used


def test_cast_sends(served: Served) -> None:
    key = f"0x{bytes(served.chain.faucet.key).hex()}"
    before = served.chain.balance(NOBODY)
    sent = json.loads(_cast(served, "send", NOBODY, "--value", "9", "--private-key", key, "--json"))
    assert sent["status"] == "0x1"
    assert served.chain.balance(NOBODY) == before + 9
