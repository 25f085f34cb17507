"""`tallystick chain`, `deploy` and `serve` on it: a real Anvil, three processes, one life."""

import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account

from engine.chain.gateway import ChainError
from engine.chain.json_rpc import JsonRpcChain
from tests.anvil_world import ANVIL_TOML
from tests.cli.conftest import Shell
from tests.cli.processes import Running, Serving, called, one_line, tallystick, wait_for


@dataclass
class Chain:
    """A running `tallystick chain`."""

    process: Running
    url: str
    operator_key: str
    owner_key: str


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's anvil.toml, where it may keep its state."""
    return Path(shutil.copy(ANVIL_TOML, tmp_path_factory.mktemp("config")))


@pytest.fixture(scope="module")
def chain(config: Path) -> Iterator[Chain]:
    """Anvil as the command starts it: it says where it listens and who has money."""
    process = Running("chain", "--config", config, "--port", "0", until="anvil")
    url = process.found(r"anvil +(http://\S+)")
    keys = []
    for _ in range(3):
        process.read_line()
        keys.append(process.lines[-1].split()[-1])
    yield Chain(process, url, keys[0], keys[1])
    assert process.stop() == (0, "")
    with pytest.raises(ChainError):
        _ = JsonRpcChain(url, timeout_s=2).chain_id


def deploy(chain: Chain) -> dict[str, str]:
    """Run `deploy` and read the exports that it prints as a shell would."""
    known = {"chain": chain.url, "operator_key": chain.operator_key}
    done = tallystick("deploy", "--test-usdc", **known)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# AnchorRegistry 0x")
    exports = [shlex.split(line)[1] for line in done.stdout.splitlines()[1:]]
    values = dict(export.split("=", 1) for export in exports)
    assert values.keys() == {"TALLYSTICK_REGISTRY", "TALLYSTICK_TOKENS"}
    return known | {name.removeprefix("TALLYSTICK_").lower(): values[name] for name in values}


def test_a_session_lives_on_a_chain_of_ones_own(chain: Chain, tmp_path: Path) -> None:
    variables = deploy(chain)
    server = Serving(tmp_path / "data", **variables)
    assert (server.chain, server.registry) == ("eip155:31337", variables["registry"])
    assert chain.url not in "".join(server.lines), "a URL can hold a key"
    assert server.rpc == "the URL in TALLYSTICK_CHAIN"
    assert server.first_key is not None
    owner = Account.from_key(chain.owner_key)
    key_file = tmp_path / "owner.key"
    key_file.write_text(chain.owner_key)
    shell = Shell(server, server.first_key, owner, key_file, tmp_path)
    done = shell(
        *("sessions", "create", "--agent-id", "a", "--wallet", owner.address, "--mint-pkp"),
        *("--owner-key-file", key_file),
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = {line.split("  ")[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert (shown["status"], shown["consent"]) == ("active", "eip712")
    token = done.stdout.split()[-1]
    assert shell("pay", "1.25", session_token=token).returncode == 0
    assert shell("anchor").stdout.startswith(("final: ", "mined: ", "sent: "))
    while not shell("anchor").stdout.startswith("final: "):
        pass
    assert shell("evidence", shown["id"]).returncode == 0
    verified = called(
        *("verify", tmp_path / "evidence.json"),
        *("--rpc", chain.url, "--registry", server.registry),
    )
    assert verified.stdout.splitlines()[-1] == "VERIFIED"
    assert verified.returncode == 0
    assert server.stop() == (0, "")


def test_deploy_wants_a_chain_and_a_key(chain: Chain) -> None:
    assert "TALLYSTICK_CHAIN" in one_line(called("deploy"), 1)
    assert "TALLYSTICK_OPERATOR_KEY" in one_line(called("deploy", chain=chain.url), 1)
    poor = {"chain": chain.url, "operator_key": "0x" + "77" * 32}
    assert "nsufficient" in one_line(called("deploy", **poor), 1)
    deaf = {"chain": "http://127.0.0.1:1", "operator_key": chain.operator_key}
    assert "127.0.0.1:1" in one_line(called("deploy", **deaf), 1)


def test_a_chain_that_cannot_be_started_is_one_line(chain: Chain, tmp_path: Path) -> None:
    port = chain.url.rpartition(":")[2]
    (tmp_path / "anvil.toml").write_text(f"port = {port}\n")
    assert f":{port}" in one_line(tallystick("chain", cwd=tmp_path), 1)
    (tmp_path / "anvil.toml").write_text("prot = 1\n")
    assert "unknown key 'prot'" in one_line(tallystick("chain", cwd=tmp_path), 1)
    assert "missing.toml" in one_line(tallystick("chain", "--config", "missing.toml"), 1)


def anvil_of(process: int) -> int:
    """The one child of a process."""
    [child] = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


def test_an_anvil_that_dies_ends_the_command_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "anvil.toml").write_text("")
    process = Running("chain", "--config", tmp_path / "anvil.toml", "--port", "0", until="anvil")
    os.kill(anvil_of(process.pid), signal.SIGKILL)
    status, errors = process.wait()
    assert status == 1
    assert errors.splitlines() == ["chain_error: anvil ended by itself, with status 9"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_no_anvil_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "anvil.toml").write_text("")
    process = Running("chain", "--config", tmp_path / "anvil.toml", "--port", "0", until="anvil")
    anvil = anvil_of(process.pid)
    assert process.stop(how) == (0, "")
    wait_for(anvil)
