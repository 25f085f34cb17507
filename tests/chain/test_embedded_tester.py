"""The embedded chain is an eth-tester chain: web3 through eth-tester and the engine share it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_tester import EthereumTester, PyEVMBackend  # type: ignore[import-untyped]
from eth_tester.exceptions import TransactionFailed  # type: ignore[import-untyped]
from eth_utils.exceptions import ValidationError
from web3 import EthereumTesterProvider, Web3

from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc_methods import RpcMethods
from engine.chain.embedded_tester import NotSupported
from engine.chain.gateway import ChainUnavailable
from engine.chain.sender import send, sign
from tests.chain import bytecode
from tests.chain.observe import NOBODY, deploy_and_emit, everything, headers, is_linked

START_S = 1_800_000_000
ETHER = 10**18


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.sqlite3"


@pytest.fixture
def chain(path: Path) -> Iterator[EmbeddedChain]:
    chain = EmbeddedChain(path, clock=lambda: START_S)
    yield chain
    chain.close()


def web3_of(chain: EmbeddedChain) -> Web3:
    return Web3(EthereumTesterProvider(chain.tester))


def accounts(web3: Web3) -> Any:
    """eth-tester's ten."""
    return web3.eth.accounts


def send_by(web3: Web3, sender: int = 0, **fields: Any) -> bytes:
    """Send from one of eth-tester's accounts, which the node signs for."""
    message: Any = {"from": accounts(web3)[sender], **fields}
    return web3.eth.send_transaction(message)


def transact(web3: Web3, sender: int = 0, **fields: Any) -> Any:
    """Send as `send_by` does and return the receipt."""
    sent: Any = send_by(web3, sender, **fields)
    return web3.eth.wait_for_transaction_receipt(sent)


# One chain, two ways in


def test_it_is_eth_tester(chain: EmbeddedChain) -> None:
    assert isinstance(chain.tester, EthereumTester)
    assert isinstance(chain.tester.backend, PyEVMBackend)
    assert chain.tester is chain.tester
    with chain.locked() as py_evm:
        assert chain.tester.backend.chain is py_evm
    accounts = chain.tester.get_accounts()
    assert accounts == EthereumTester(PyEVMBackend()).get_accounts()
    assert accounts[0] == chain.faucet.address
    assert web3_of(chain).eth.chain_id == chain.chain_id


def test_what_web3_sends_the_engine_sees_and_a_restart_keeps(
    chain: EmbeddedChain, path: Path
) -> None:
    web3 = web3_of(chain)
    contract = transact(web3, data=bytecode.INIT)["contractAddress"]
    receipt = transact(web3, sender=1, to=contract, data=bytecode.emit(b"paid"))
    [log] = web3.eth.get_logs({"address": contract, "fromBlock": 0})
    assert (receipt["status"], log["data"], log["topics"][0]) == (1, b"paid", bytecode.EVENT)
    assert web3.eth.call({"to": contract, "data": bytecode.echo(b"x")}) == b"x"
    with pytest.raises(TransactionFailed):
        web3.eth.call({"to": contract, "data": bytecode.revert(b"no")})

    [seen] = chain.logs(from_block=0, to_block=2, addresses=[contract.lower()])
    assert (seen.data, seen.tx_hash) == (b"paid", receipt["transactionHash"])
    assert (seen.block_hash, seen.block_number) == (receipt["blockHash"], 2)
    same = chain.receipt(seen.tx_hash)
    assert same is not None
    assert (same.gas_used, same.logs) == (receipt["gasUsed"], (seen,))
    assert chain.code(contract) == bytecode.RUNTIME
    before = everything(chain)
    chain.close()

    again = EmbeddedChain(path, clock=lambda: START_S)
    assert everything(again) == before
    found = web3_of(again).eth.get_transaction_receipt(receipt["transactionHash"])
    assert found == receipt
    assert transact(web3_of(again), to=contract, data=bytecode.emit(b"more"))["blockNumber"] == 3
    again.close()


def test_what_the_engine_sends_web3_sees(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    filter_ = web3.eth.filter("latest")
    contract = deploy_and_emit(chain, 2)
    chain.fund(NOBODY, ETHER)
    assert web3.eth.block_number == chain.head().number == 4
    assert web3.eth.get_block("latest")["hash"] == chain.head().hash
    assert web3.eth.get_balance(Web3.to_checksum_address(NOBODY)) == ETHER
    assert web3.eth.get_transaction_count(accounts(web3)[0]) == 4
    logs = web3.eth.get_logs({"address": Web3.to_checksum_address(contract), "fromBlock": 0})
    assert [log["data"] for log in logs] == [b"0", b"1"]
    transact(web3, to=accounts(web3)[1], value=1)
    entries: list[Any] = filter_.get_new_entries()
    assert entries == [chain.head().hash]  # eth-tester tells of its own


def test_a_raw_transaction_may_go_either_way(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    signed = sign(chain, chain.faucet, to=NOBODY, data=b"", value=1)
    assert web3.eth.send_raw_transaction(signed.raw) == signed.hash
    assert chain.send_raw(signed.raw) == signed.hash
    assert chain.head().number == 1
    assert transact(web3, to=accounts(web3)[1], gasPrice=10**10)["status"] == 1


def test_both_ways_in_give_the_same_blocks() -> None:
    """The same transaction, time, prevrandao and gas limit, hence the same hash."""
    by_engine = EmbeddedChain(None, clock=lambda: START_S)
    by_web3 = EmbeddedChain(None, clock=lambda: START_S)
    for data in (bytecode.INIT, b""):
        signed = sign(by_engine, by_engine.faucet, to=None, data=data)
        by_engine.send_raw(signed.raw)
        web3_of(by_web3).eth.send_raw_transaction(signed.raw)
        by_engine.mine()
        by_web3.tester.mine_block()
    assert headers(by_engine) == headers(by_web3)
    by_engine.close()
    by_web3.close()


def test_prevrandao_and_time_are_those_of_the_block() -> None:
    now_s = START_S
    chain = EmbeddedChain(None, clock=lambda: now_s)
    web3 = web3_of(chain)
    now_s = START_S + 3600
    # Code that returns TIMESTAMP, then PREVRANDAO: created, the value is the contract's code.
    for opcode, field in (("42", "timestamp"), ("44", "mixHash")):
        receipt = transact(web3, data=bytes.fromhex(f"{opcode}60005260206000f3"))
        value: Any = web3.eth.get_block(receipt["blockNumber"])[field]  # type: ignore[literal-required]
        code = chain.code(receipt["contractAddress"])
        assert code == (value if isinstance(value, bytes) else value.to_bytes(32))
    assert web3.eth.get_block(1)["timestamp"] == now_s
    chain.close()


def test_the_fee_recipient_is_paid(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    miner = Web3.to_checksum_address(NOBODY)
    chain.tester.disable_auto_mine_transactions()
    send_by(web3, to=accounts(web3)[1])
    chain.tester.mine_block(coinbase=miner)
    assert web3.eth.get_block("latest")["miner"] == miner
    assert 0 < chain.balance(NOBODY) < ETHER


# Refusing


def test_a_transaction_for_another_chain_is_refused(chain: EmbeddedChain) -> None:
    other = EmbeddedChain(None, chain_id=4242)
    signed = sign(other, other.faucet, to=NOBODY, data=b"", value=1)
    with pytest.raises(ValidationError, match="signed for chain 4242"):
        web3_of(chain).eth.send_raw_transaction(signed.raw)
    assert chain.head().number == 0
    web3_of(other).eth.send_raw_transaction(signed.raw)
    assert other.balance(NOBODY) == 1
    other.close()


def test_time_may_be_travelled_forward_and_stays_there(chain: EmbeddedChain, path: Path) -> None:
    chain.tester.time_travel(START_S + 1000)
    assert chain.head().timestamp_s == START_S + 999
    chain.close()
    again = EmbeddedChain(path, clock=lambda: START_S)
    receipt = transact(web3_of(again), to=again.faucet.address)
    assert web3_of(again).eth.get_block(receipt["blockNumber"])["timestamp"] == START_S + 1000
    with pytest.raises(Exception, match="backwards"):
        again.tester.time_travel(START_S)
    again.close()


def test_what_is_mined_cannot_be_undone(chain: EmbeddedChain) -> None:
    snapshot = chain.tester.take_snapshot()
    chain.tester.revert_to_snapshot(snapshot)
    deploy_and_emit(chain, 1)
    before = everything(chain)
    with pytest.raises(NotSupported, match="cannot be reverted"):
        chain.tester.revert_to_snapshot(snapshot)
    with pytest.raises(NotSupported, match="cannot be reset"):
        chain.tester.reset_to_genesis()
    with pytest.raises(NotSupported, match="withdrawals"):
        chain.tester.backend.apply_withdrawals([])
    assert everything(chain) == before
    answer: Any = web3_of(chain).provider.make_request("evm_revert", [snapshot])  # type: ignore[arg-type]
    assert "not been implemented" in answer["error"]["message"]


def test_a_closed_chain_is_unavailable(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    chain.close()
    with pytest.raises(ChainUnavailable, match="closed"):
        _ = web3.eth.block_number


def test_a_full_disk_leaves_nothing_pending(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    transact(web3, to=accounts(web3)[1])
    before = everything(chain)
    pages = chain._store._sql.execute("PRAGMA page_count").fetchone()[0]
    chain._store._sql.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match="full"):
            transact(web3, data=bytecode.INIT.ljust(20_000, b"\0"))
        assert everything(chain) == before
        assert web3.eth.get_block("latest")["hash"] == chain.head().hash
    chain._store._sql.execute("PRAGMA max_page_count = 1000000")
    assert chain.mine().number == 2
    assert web3.eth.get_block(2)["transactions"] == []
    assert transact(web3, data=bytecode.INIT)["blockNumber"] == 3


# Mining by hand


def test_several_transactions_may_wait_for_one_block(chain: EmbeddedChain, path: Path) -> None:
    web3 = web3_of(chain)
    contract = Web3.to_checksum_address(deploy_and_emit(chain, 0))
    chain.tester.disable_auto_mine_transactions()
    sent = [
        send_by(web3, sender, to=contract, data=bytecode.emit(b"%d" % sender))
        for sender in (1, 2, 3)
    ]
    assert chain.head().number == 1
    assert all(chain.receipt(tx_hash) is None for tx_hash in sent)
    chain.fund(NOBODY, 1)  # the engine's block has none of them
    assert chain.logs(from_block=0, to_block=2) == []
    chain.tester.mine_block()
    assert chain.head().number == 3
    assert web3.eth.get_block(3)["transactions"] == sent
    chain.close()

    again = EmbeddedChain(path)
    logs = again.logs(from_block=3, to_block=3)
    assert [(log.tx_hash, log.log_index) for log in logs] == list(zip(sent, range(3), strict=True))
    receipts = [again.receipt(tx_hash) for tx_hash in sent]
    used = [receipt.gas_used for receipt in receipts if receipt is not None]
    assert used == [used[0]] * 3
    assert [receipt and receipt.logs for receipt in receipts] == [(log,) for log in logs]
    rpc = RpcMethods(again)
    by_rpc = [rpc("eth_getTransactionReceipt", [f"0x{tx_hash.hex()}"]) for tx_hash in sent]
    assert [answer["cumulativeGasUsed"] for answer in by_rpc] == [
        hex(used[0] * position) for position in (1, 2, 3)
    ]
    listed = rpc("eth_getLogs", [{"fromBlock": "0x3", "toBlock": "0x3"}])
    assert [log["transactionIndex"] for log in listed] == ["0x0", "0x1", "0x2"]
    assert [answer["logs"] for answer in by_rpc] == [[log] for log in listed]
    again.close()


def test_a_block_that_cannot_be_mined_leaves_nothing_pending(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    chain.tester.disable_auto_mine_transactions()
    for sender in (1, 0):
        send_by(web3, sender, to=Web3.to_checksum_address(NOBODY), value=ETHER)
    chain.fund(NOBODY, 1)  # takes the nonce of the second, once the first has been executed
    with pytest.raises(ValidationError, match="nonce"):
        chain.tester.mine_block()
    assert chain.mine().number == 2
    assert web3.eth.get_block(2)["transactions"] == []
    assert chain.balance(NOBODY) == 1


# Threads and kills


def test_the_engine_and_web3_may_send_at_once(chain: EmbeddedChain) -> None:
    web3 = web3_of(chain)
    contract = Web3.to_checksum_address(deploy_and_emit(chain, 0))
    engine = Account.create()
    chain.fund(engine.address.lower(), ETHER)
    before = chain.head().number

    def work(worker: int) -> list[bytes]:
        data = bytecode.emit(b"%d" % worker)
        if worker == 0:
            return [send(chain, engine, to=contract.lower(), data=data) for _ in range(12)]
        sent = [transact(web3, sender=worker, to=contract, data=data) for _ in range(4)]
        return [receipt["transactionHash"] for receipt in sent]

    with ThreadPoolExecutor(4) as pool:
        sent = [tx_hash for hashes in pool.map(work, range(4)) for tx_hash in hashes]
    assert chain.head().number == before + 24
    assert is_linked(headers(chain))
    logs = chain.logs(from_block=before + 1, to_block=before + 24)
    assert sorted(log.tx_hash for log in logs) == sorted(sent)
    assert [log.log_index for log in logs] == [0] * 24


def test_what_web3_was_told_is_mined_survives_kill_9(path: Path) -> None:
    writer = "\n".join(
        [
            "import sys, pathlib",
            "from engine.chain.embedded import EmbeddedChain",
            "tester = EmbeddedChain(pathlib.Path(sys.argv[1])).tester",
            "first, second = tester.get_accounts()[:2]",
            "while True:",
            "    fields = {'from': first, 'to': second, 'value': 1, 'gas': 21000}",
            "    print(tester.send_transaction(fields), flush=True)",
        ]
    )
    sent: list[str] = []
    for kills in (1, 2):
        with subprocess.Popen(
            [sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            while len(sent) < 8 * kills:
                sent.append(process.stdout.readline().strip())
            os.kill(process.pid, signal.SIGKILL)
            sent += process.stdout.read().split()
        chain = EmbeddedChain(path)
        receipts = [chain.receipt(bytes.fromhex(tx_hash[2:])) for tx_hash in sent]
        assert all(receipt is not None and receipt.succeeded for receipt in receipts)
        assert is_linked(headers(chain))
        assert chain.transaction_count(chain.faucet.address) == chain.head().number
        chain.close()
    assert len(set(sent)) >= 16
