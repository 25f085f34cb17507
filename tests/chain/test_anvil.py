"""Anvil from its configuration file: started, found again, stopped, and clear when it cannot be."""

import itertools
import os
import signal
from pathlib import Path

import pytest

from engine.chain import anvil as launcher
from engine.chain.anvil import AnvilConfig, AnvilProcess
from engine.chain.gateway import BlockHeader, ChainError, ChainUnavailable
from engine.chain.json_rpc import JsonRpcChain
from engine.chain.sender import send, wait
from engine.clock import system_clock
from tests.chain.conftest import ANVIL_TOML

NOBODY = "0x" + "ab" * 20


def test_the_file_of_this_repository_is_understood() -> None:
    config = AnvilConfig.from_toml(ANVIL_TOML)
    assert (config.host, config.port, config.chain_id) == ("127.0.0.1", 8545, 31337)
    assert config.hardfork == "prague"
    assert config.block_time_s is None
    assert config.state_file == ANVIL_TOML.parent / "tallystick-anvil" / "anvil-state.json"


def test_the_file_becomes_arguments(tmp_path: Path) -> None:
    path = tmp_path / "anvil.toml"
    path.write_text('block_time_s = 2\nstate_file = "s.json"\nstate_interval_s = 3\naccounts = 2\n')
    arguments = AnvilConfig.from_toml(path).arguments()
    pairs = set(itertools.pairwise(arguments))
    assert pairs >= {("--block-time", "2"), ("--state-interval", "3"), ("--accounts", "2")}
    assert ("--state", str(tmp_path / "s.json")) in pairs
    assert "--preserve-historical-states" not in arguments
    path.write_text("")
    assert AnvilConfig.from_toml(path) == AnvilConfig()
    assert not {"--block-time", "--state", "--state-interval"} & set(AnvilConfig().arguments())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 8545", "'prot'"),
        ("[server]\nport = 8545", "'server'"),
        ('port = "8545"', "port must be a int"),
        ("port = true", "port must be a int"),
        ("chain_id = 1.5", "chain_id must be a int"),
        ("state_file = 7", "state_file must be a str"),
        ("port = ", "anvil.toml"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "anvil.toml"
    path.write_text(text)
    with pytest.raises(ChainError) as caught:
        AnvilProcess.from_toml(path)
    assert named in str(caught.value)


def test_a_missing_file_or_a_wrong_override_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="nowhere"):
        AnvilProcess.from_toml(tmp_path / "nowhere.toml")
    with pytest.raises(ChainError, match="'ports'"):
        AnvilProcess.from_toml(ANVIL_TOML, ports=1)


def test_the_development_accounts_are_the_well_known_ones(anvil: AnvilProcess) -> None:
    first, second, *others = anvil.accounts()
    assert first.address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert second.address == "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
    assert len(others) == 8
    chain = JsonRpcChain(anvil.url, expected_chain_id=31337)
    assert chain.balance(others[-1].address.lower()) == 10_000 * 10**18
    chain.close()


def test_a_stopped_anvil_is_found_again_with_its_chain(tmp_path: Path) -> None:
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=tmp_path / "new" / "state.json")
    hashes = []
    for _ in range(2):
        with anvil:
            chain = JsonRpcChain(anvil.url, expected_chain_id=31337)
            tx_hash = send(chain, anvil.accounts()[0], to=NOBODY, data=b"", value=1)
            hashes.append(tx_hash)
            wait(chain, tx_hash, timeout_s=10, poll_s=0.01)
            assert all(chain.receipt(known) is not None for known in hashes)
            assert chain.balance(NOBODY) == len(hashes) == chain.head().number
            chain.close()


def first_block(anvil: AnvilProcess) -> BlockHeader:
    chain = JsonRpcChain(anvil.url, expected_chain_id=31337)
    header = chain.block(0)
    chain.close()
    assert header is not None
    return header


def test_block_0_stays_the_same_over_starts_without_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=tmp_path / "state.json")
    found = set()
    # The first start was a while ago: a block that is dated by a later one is another block.
    monkeypatch.setattr(launcher, "system_clock", lambda: system_clock() - 3_600_000)
    for start in range(4):
        with anvil:
            found.add(first_block(anvil).hash)
            if start < 2:
                chain = JsonRpcChain(anvil.url, expected_chain_id=31337)
                send(chain, anvil.accounts()[0], to=NOBODY, data=b"", value=1)
                chain.close()
        monkeypatch.undo()
    assert len(found) == 1


def test_an_old_chain_has_the_clock_of_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = system_clock() // 1_000
    monkeypatch.setattr(launcher, "_born_s", lambda _: now_s - 3_600)
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=tmp_path / "state.json")
    with anvil:
        assert first_block(anvil).timestamp_s == now_s - 3_600
        chain = JsonRpcChain(anvil.url, expected_chain_id=31337)
        tx_hash = send(chain, anvil.accounts()[0], to=NOBODY, data=b"", value=1)
        wait(chain, tx_hash, timeout_s=10, poll_s=0.01)
        assert chain.head().timestamp_s >= now_s
        chain.close()


def test_stopping_ends_the_process() -> None:
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None)
    anvil.stop()
    anvil.start()
    pid, url = anvil.pid, anvil.url
    assert pid is not None
    anvil.stop()
    anvil.stop()
    assert anvil.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    chain = JsonRpcChain(url)
    with pytest.raises(ChainUnavailable):
        chain.head()
    chain.close()


def test_an_anvil_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "STOP_GRACE_S", 0.1)
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None).start()
    pid = anvil.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    anvil.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_taken_port_is_an_error_even_if_an_anvil_answers_there(anvil: AnvilProcess) -> None:
    second = AnvilProcess.from_toml(ANVIL_TOML, port=anvil.config.port, state_file=None)
    with pytest.raises(ChainError, match="cannot listen"):
        second.start()
    assert second.pid is None


def test_what_anvil_says_when_it_ends_is_passed_on() -> None:
    anvil = AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, hardfork="nonsense")
    with pytest.raises(ChainError, match=r"anvil ended at once \(\d+\): .*nonsense"):
        anvil.start()
    assert anvil.pid is None


def test_without_a_binary_the_error_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher, "_REPOSITORY", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChainError, match="scripts/setup dev"):
        AnvilProcess(AnvilConfig(port=0)).start()
