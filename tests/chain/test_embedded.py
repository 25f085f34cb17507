"""The embedded chain's own promises: it survives, it is whole, it says so when it cannot be."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine import RECURSION_LIMIT
from engine.chain.embedded import ETH_TESTER_CHAIN_ID, EmbeddedChain
from engine.chain.gateway import ChainError, ChainUnavailable
from engine.chain.sender import send, sign
from tests.chain import bytecode
from tests.chain.observe import NOBODY, deploy_and_emit, everything, headers, is_linked

ETHER = 10**18
START_S = 1_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.sqlite3"


# Surviving


def test_a_restart_changes_nothing(path: Path) -> None:
    chain = EmbeddedChain(path, clock=lambda: START_S)
    contract = deploy_and_emit(chain, 3)
    chain.fund(NOBODY, ETHER)
    chain.mine(2)
    before = everything(chain)
    chain.close()

    chain = EmbeddedChain(path, clock=lambda: START_S)
    assert everything(chain) == before
    assert len(before["logs"]) == 3
    assert chain.call(contract, bytecode.echo(b"still here")) == b"still here"
    assert int.from_bytes(chain.call(contract, bytecode.time, block=2)) == START_S + 2
    chain.close()


def test_a_reopened_chain_goes_on_as_if_it_had_never_stopped(path: Path) -> None:
    stopped = EmbeddedChain(path, clock=lambda: START_S)
    running = EmbeddedChain(None, clock=lambda: START_S)
    for round_number in range(3):
        for chain in (stopped, running):
            chain.fund(NOBODY, round_number + 1)
            deploy_and_emit(chain, 1)
        stopped.close()
        stopped = EmbeddedChain(path, clock=lambda: START_S)
    assert everything(stopped) == everything(running)
    stopped.close()
    running.close()


def test_a_block_is_synced_to_the_disk(path: Path) -> None:
    chain = EmbeddedChain(path)
    sql = chain._store._sql
    assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sql.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    chain.close()


def test_a_full_disk_stops_the_chain_without_harm(path: Path) -> None:
    chain = EmbeddedChain(path)
    chain.fund(NOBODY, 1)
    before = everything(chain)
    signed = sign(chain, chain.faucet, to=None, data=bytecode.INIT.ljust(20_000, b"\0"))
    pages = chain._store._sql.execute("PRAGMA page_count").fetchone()[0]
    chain._store._sql.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ChainUnavailable, match="full"):
        chain.send_raw(signed.raw)
    assert everything(chain) == before
    chain._store._sql.execute("PRAGMA max_page_count = 1000000")
    assert chain.send_raw(signed.raw) == signed.hash
    assert chain.head().number == 2
    chain.close()


# Refusing


def test_a_second_opener_is_refused_until_the_first_closes(path: Path) -> None:
    first = EmbeddedChain(path)
    with pytest.raises(ChainError, match="in use"):
        EmbeddedChain(path)
    opener = "import sys, pathlib; from engine.chain.embedded import EmbeddedChain as Chain\n"
    opener += "Chain(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", opener, str(path)], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "is in use by another process" in other.stderr
    first.fund(NOBODY, 1)
    first.close()
    again = EmbeddedChain(path)
    assert again.balance(NOBODY) == 1
    again.close()


@pytest.mark.parametrize("content", [b"x", b"a letter to a friend\n" * 400, b"\0" * 8192])
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ChainError, match=path.name):
        EmbeddedChain(path)
    assert path.read_bytes() == content


def test_a_foreign_database_is_refused_and_left_alone(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE grocery (item TEXT)")
    database.commit()
    database.close()
    content = path.read_bytes()
    with pytest.raises(ChainError, match="not an embedded chain"):
        EmbeddedChain(path)
    assert path.read_bytes() == content


def test_a_damaged_file_never_yields_another_chain(path: Path, tmp_path: Path) -> None:
    chain = EmbeddedChain(path)
    deploy_and_emit(chain, 8)
    chain.fund(NOBODY, 1)
    truth = everything(chain)
    chain.close()
    draw = random.Random(3)
    refused = 0
    for index in range(60):
        damaged = tmp_path / f"damaged-{index}.sqlite3"
        shutil.copy(path, damaged)
        with damaged.open("r+b") as file:
            file.seek(draw.randrange(path.stat().st_size))
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old[0] ^ 1 << draw.randrange(8)]))
        try:
            chain = EmbeddedChain(damaged)
        except ChainError:
            refused += 1
            continue
        try:
            assert everything(chain) == truth
        except ChainUnavailable:
            refused += 1
        finally:
            chain.close()
    assert refused > 10


def test_a_truncated_file_is_refused(path: Path) -> None:
    chain = EmbeddedChain(path)
    deploy_and_emit(chain, 8)
    chain.close()
    content = path.read_bytes()[:-8192]
    path.write_bytes(content)
    with pytest.raises(ChainError, match="damaged"):
        EmbeddedChain(path)


def test_an_event_that_is_missing_from_the_file_is_missed(path: Path) -> None:
    chain = EmbeddedChain(path)
    deploy_and_emit(chain, 1)
    header = chain.head()
    assert len(chain.block_logs(header)) == 1
    chain.close()
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM log WHERE block_number = ?", (header.number,))
    file.close()
    chain = EmbeddedChain(path)
    assert chain.logs(from_block=header.number, to_block=header.number) == []
    with pytest.raises(ChainUnavailable, match="lost an event"):
        chain.block_logs(header)
    chain.close()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="cannot be opened"):
        EmbeddedChain(tmp_path / "missing" / "chain.sqlite3")


def test_a_chain_keeps_its_id(path: Path) -> None:
    EmbeddedChain(path, chain_id=4242).close()
    with pytest.raises(ChainError, match="4242"):
        EmbeddedChain(path)
    chain = EmbeddedChain(path, chain_id=4242)
    assert chain.fund(NOBODY, 1).succeeded
    chain.close()
    memory = EmbeddedChain(None)
    assert memory.chain_id == ETH_TESTER_CHAIN_ID == 131277322940537
    memory.close()


# Time, threads, sameness


def test_block_time_follows_the_clock_and_always_moves() -> None:
    now_s = START_S
    chain = EmbeddedChain(None, clock=lambda: now_s)
    assert chain.head().timestamp_s == START_S
    assert chain.mine().timestamp_s == START_S + 1
    now_s = START_S + 60
    assert chain.mine().timestamp_s == START_S + 60
    now_s = START_S - 1000
    assert chain.mine(2).timestamp_s == START_S + 62
    assert chain.mine(timestamp_s=START_S + 500).timestamp_s == START_S + 500
    assert chain.mine(2, timestamp_s=START_S + 600).timestamp_s == START_S + 601
    with pytest.raises(ChainError, match="not after"):
        chain.mine(timestamp_s=START_S + 601)
    chain.close()


def test_a_transaction_sees_the_time_of_its_block() -> None:
    now_s = START_S
    chain = EmbeddedChain(None, clock=lambda: now_s)
    contract = deploy_and_emit(chain, 0)
    now_s = START_S + 3600
    assert int.from_bytes(chain.call(contract, bytecode.time)) == START_S + 3600
    # Code that returns the time becomes, when created, a contract whose code is the time.
    created = chain.receipt(
        send(chain, chain.faucet, to=None, data=bytes.fromhex("4260005260206000f3"))
    )
    assert created is not None
    assert created.contract_address is not None
    block = chain.block(created.block_number)
    assert block is not None
    assert block.timestamp_s == START_S + 3600
    assert int.from_bytes(chain.code(created.contract_address)) == START_S + 3600
    chain.close()


def test_the_same_history_gives_the_same_hashes() -> None:
    heads = set()
    for _ in range(2):
        chain = EmbeddedChain(None, clock=lambda: START_S)
        deploy_and_emit(chain, 2)
        heads.add(chain.head().hash)
        chain.close()
    assert len(heads) == 1


def test_threads_may_share_a_chain(path: Path) -> None:
    chain = EmbeddedChain(path)
    contract = deploy_and_emit(chain, 0)
    accounts: list[LocalAccount] = [Account.create() for _ in range(8)]
    for account in accounts:
        chain.fund(account.address.lower(), ETHER)
    before = chain.head().number

    def work(account: LocalAccount) -> list[bytes]:
        sent = []
        for index in range(5):
            sent.append(send(chain, account, to=contract, data=bytecode.emit(b"%d" % index)))
            assert chain.call(contract, bytecode.echo(b"x")) == b"x"
            head = chain.head()
            assert chain.block(head.number) == head
            chain.logs(from_block=0, to_block=head.number)
        return sent

    with ThreadPoolExecutor(8) as pool:
        sent = [tx_hash for hashes in pool.map(work, accounts) for tx_hash in hashes]
    assert len(set(sent)) == 40
    assert chain.head().number == before + 40
    assert is_linked(headers(chain))
    logs = chain.logs(from_block=before + 1, to_block=before + 40, addresses=[contract])
    assert sorted(log.tx_hash for log in logs) == sorted(sent)
    assert all(chain.transaction_count(account.address) == 5 for account in accounts)
    chain.close()


def test_the_deepest_calls_run_in_any_thread() -> None:
    """And yet the process may not recurse so deep that parsing hostile JSON overflows its stack."""
    chain = EmbeddedChain(None)
    calls_itself = bytes.fromhex("60006000600060006000305af15000")
    init = bytes.fromhex(f"60{len(calls_itself):02x}80600b6000396000f3") + calls_itself
    created = chain.receipt(send(chain, chain.faucet, to=None, data=init))
    assert created is not None
    assert created.contract_address is not None
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(chain.call, created.contract_address, b"").result() == b""
        with pytest.raises(RecursionError):
            pool.submit(json.loads, "[" * 1_000_000).result()
    assert sys.getrecursionlimit() == RECURSION_LIMIT
    chain.close()


def test_an_address_of_the_wrong_size_is_an_error() -> None:
    chain = EmbeddedChain(None)
    with pytest.raises(ChainError, match="not an address"):
        chain.balance("0x1234")
    chain.close()
