"""Kill -9 at any moment: what was acknowledged is there, and every block is whole."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import BlockHeader
from tests.chain.observe import headers, is_linked

KILLS = 12
WRITES_OF_A_BIRTH_AND_TWO_BLOCKS = 90
WRITES_BETWEEN_KILLS = 5


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chain.killed_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def _events(writers: subprocess.Popen[str], path: Path, statements: int) -> Iterator[list[str]]:
    """Start a writer and yield what it reports, word by word, until it is dead."""
    assert writers.stdin is not None
    assert writers.stdout is not None
    writers.stdin.write(f"{path} {statements}\n")
    writers.stdin.flush()
    for line in writers.stdout:
        if line.strip() == "dead":
            return
        yield line.split()


def _killed_after(
    writers: subprocess.Popen[str], path: Path, *, sent: int, delay_s: float
) -> list[bytes]:
    """Kill a writer that has sent so many, and return the hashes that it was told are mined."""
    hashes: list[bytes] = []
    pid = 0
    for word, argument in _events(writers, path, 0):
        if word == "pid":
            pid = int(argument)
        else:
            hashes.append(bytes.fromhex(argument))
        if pid and len(hashes) >= sent:
            # Not a wait for anything: it spreads the kills over the phases of a block's life.
            time.sleep(delay_s)
            os.kill(pid, signal.SIGKILL)
            pid = 0
    return hashes


def _check_whole(chain: EmbeddedChain, sent: list[bytes]) -> list[BlockHeader]:
    """Check that every block has its one transaction with its one log, and all of `sent`."""
    blocks = headers(chain)
    assert is_linked(blocks)
    logs = chain.logs(from_block=0, to_block=len(blocks))
    assert [log.block_hash for log in logs] == [block.hash for block in blocks[1:]]
    receipts = [chain.receipt(log.tx_hash) for log in logs]
    assert [receipt and receipt.logs for receipt in receipts] == [(log,) for log in logs]
    assert chain.transaction_count(chain.faucet.address) == len(logs)
    assert {log.tx_hash for log in logs} >= set(sent)
    return blocks


def test_nothing_that_was_acknowledged_is_lost_to_kill_9(
    tmp_path: Path, writers: subprocess.Popen[str]
) -> None:
    path = tmp_path / "chain.sqlite3"
    draw = random.Random(20261121)
    sent: list[bytes] = []
    known: list[BlockHeader] = []
    for _ in range(KILLS):
        count, delay_s = draw.randrange(5), draw.uniform(0, 0.02)
        sent += _killed_after(writers, path, sent=count, delay_s=delay_s)
        chain = EmbeddedChain(path)
        blocks = _check_whole(chain, sent)
        assert blocks[: len(known)] == known
        known = blocks
        chain.close()
    assert len(sent) >= KILLS
    chain = EmbeddedChain(path)
    assert chain.fund("0x" + "ab" * 20, 1).block_number == len(known)
    chain.close()


def test_killed_at_any_write_a_block_is_there_whole_or_not_at_all(
    tmp_path: Path, writers: subprocess.Popen[str]
) -> None:
    heights = set()
    for statements in range(1, WRITES_OF_A_BIRTH_AND_TWO_BLOCKS, WRITES_BETWEEN_KILLS):
        path = tmp_path / f"{statements}.sqlite3"
        events = list(_events(writers, path, statements))
        sent = [bytes.fromhex(argument) for word, argument in events if word == "sent"]
        chain = EmbeddedChain(path)
        heights.add(len(_check_whole(chain, sent)) - 1)
        assert chain.fund("0x" + "ab" * 20, 1).succeeded
        chain.close()
    assert heights >= {0, 1, 2}
