"""A local Anvil node (Foundry) as a child process, configured by `anvil.toml`.

with AnvilProcess.from_toml(Path("anvil.toml"), port=0, state_file=None) as anvil:
    chain = JsonRpcChain(anvil.url, expected_chain_id=anvil.config.chain_id)
"""

import shutil
import socket
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from engine.chain.gateway import ChainError, ChainUnavailable
from engine.chain.json_rpc import JsonRpcChain
from engine.chain.json_rpc_endpoint import Endpoint
from engine.clock import system_clock

if TYPE_CHECKING:  # eth-account is slow to import; only `accounts` needs it
    from eth_account.signers.local import LocalAccount

TEST_MNEMONIC = "test test test test test test test test test test test junk"
START_TIMEOUT_S = 20.0
STOP_GRACE_S = 10.0
_POLL_S = 0.02
_FREE_PORT_ATTEMPTS = 3
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class AnvilConfig:
    """What `anvil.toml` may say. `port` 0 takes a free one; `block_time_s` None mines at once."""

    host: str = "127.0.0.1"
    port: int = 8545
    chain_id: int = 31337
    hardfork: str = "prague"
    block_time_s: float | None = None
    mnemonic: str = TEST_MNEMONIC
    accounts: int = 10
    balance_ether: int = 10_000
    state_file: Path | None = None
    state_interval_s: int | None = None
    preserve_historical_states: bool = False

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read the file; a relative `state_file` is relative to its directory.

        Raises:
            ChainError: not readable, an unknown key, or a value of the wrong type; names the key.
        """
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ChainError(f"{path}: {error}") from error
        for key, value in values.items():
            if key not in _TYPES:
                raise ChainError(f"{path}: unknown key {key!r}; known are {', '.join(_TYPES)}")
            if type(value) not in _TYPES[key]:
                raise ChainError(f"{path}: {key} must be a {_TYPES[key][0].__name__}")
        if "state_file" in values:
            values["state_file"] = path.parent / values["state_file"]
        return cls(**values)

    def arguments(self) -> list[str]:
        """Return the command line that makes Anvil do this."""
        arguments = ["--quiet", "--host", self.host, "--port", str(self.port)]
        arguments += ["--chain-id", str(self.chain_id), "--hardfork", self.hardfork]
        arguments += ["--mnemonic", self.mnemonic, "--accounts", str(self.accounts)]
        arguments += ["--balance", str(self.balance_ether)]
        if self.block_time_s is not None:
            arguments += ["--block-time", str(self.block_time_s)]
        if self.state_file is not None:
            arguments += ["--state", str(self.state_file)]
            if self.state_interval_s is not None:
                arguments += ["--state-interval", str(self.state_interval_s)]
            if self.preserve_historical_states:
                arguments.append("--preserve-historical-states")
        return arguments


# How TOML writes each field. Types are compared exactly, since to Python a bool is an int too.
_TYPES: dict[str, tuple[type, ...]] = {
    field.name: {
        "block_time_s": (float, int),
        "state_file": (str,),
        "state_interval_s": (int,),
    }.get(field.name, (type(field.default),))
    for field in fields(AnvilConfig)
}


class AnvilProcess:
    """One Anvil, from `start` to `stop`. As a context manager it does both."""

    def __init__(self, config: AnvilConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def from_toml(cls, path: Path, **overrides: Any) -> Self:
        """Configure from a file; `overrides` are fields of `AnvilConfig`.

        Raises:
            ChainError: as `AnvilConfig.from_toml`, or an override of an unknown name.
        """
        if unknown := overrides.keys() - _TYPES.keys():
            raise ChainError(f"unknown override {min(unknown)!r}")
        return cls(replace(AnvilConfig.from_toml(path), **overrides))

    @property
    def url(self) -> str:
        """The JSON-RPC endpoint; with port 0, real once started."""
        return f"http://{self.config.host}:{self.config.port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def accounts(self) -> "list[LocalAccount]":
        """Derive the funded accounts: BIP-39 mnemonic, BIP-44 path m/44'/60'/0'/0/index."""
        from eth_account import Account
        from eth_account.hdaccount import seed_from_mnemonic
        from eth_account.hdaccount.deterministic import HDPath

        seed = seed_from_mnemonic(self.config.mnemonic, "")
        keys = (HDPath(f"m/44'/60'/0'/0/{at}").derive(seed) for at in range(self.config.accounts))
        return [Account.from_key(key) for key in keys]

    def start(self) -> Self:
        """Start Anvil and return once it answers.

        Raises:
            ChainError: no binary, or it ended or did not answer in time; says what it printed.
        """
        binary = _find_binary()
        born_s = None if self.config.state_file is None else _born_s(self.config.state_file)
        attempts = 1 if self.config.port else _FREE_PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                port = _free_port(self.config.host, self.config.port)
                config = replace(self.config, port=port)
                self._process = _launch(binary, config, born_s)
            except ChainError:
                # Somebody may have taken the port between finding it free and using it.
                if attempt == attempts:
                    raise
            else:
                self.config = config
                break
        return self

    def stop(self) -> None:
        """Let it write its state and end (SIGTERM); kill it after a grace. Twice is harmless."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _find_binary() -> Path:
    packages = _REPOSITORY / "contracts" / "node_modules" / "@foundry-rs"
    for found in sorted(packages.glob("anvil-*/bin/anvil")):
        return found
    if on_path := shutil.which("anvil"):
        return Path(on_path)
    raise ChainError("anvil is not installed: run scripts/setup dev, or put anvil on the PATH")


def _born_s(state_file: Path) -> int | None:
    """When the chain of this file began: a Unix time that is kept beside it; None if it is not.

    Anvil dates block 0 by its own start, and writes it down each time: of several it loads any, and
    the chain would be another one after a restart.
    """
    kept = state_file.with_name(f"{state_file.name}.born")
    if state_file.exists():
        return int(kept.read_text()) if kept.exists() else None
    state_file.parent.mkdir(parents=True, exist_ok=True)
    born_s = system_clock() // 1_000
    kept.write_text(f"{born_s}\n")
    return born_s


def _free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0. On a taken one a stranger would answer for Anvil."""
    try:
        with socket.create_server((host, port)) as probe:
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise ChainError(
            f"anvil cannot listen on {host}:{port}: {error.strerror}; "
            "stop what listens there (tallystick serve?), or pass --port"
        ) from error


def _launch(binary: Path, config: AnvilConfig, born_s: int | None) -> subprocess.Popen[bytes]:
    dated = [] if born_s is None else ["--timestamp", str(born_s)]
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(  # noqa: S603 - arguments are a list, and the binary is ours
            [binary, *config.arguments(), *dated],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=printed,
        )
        try:
            _wait_until_it_answers(process, config, printed)
            if born_s is not None:  # else it would count the time from there
                _set_clock(config)
        except BaseException:
            _end(process)
            raise
        return process


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], config: AnvilConfig, printed: IO[bytes]
) -> None:
    url = f"http://{config.host}:{config.port}"
    chain = JsonRpcChain(url, timeout_s=1.0, expected_chain_id=config.chain_id)
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while True:
            if process.poll() is not None:
                printed.seek(0)
                said = printed.read(4096).decode("utf-8", "replace").strip()
                raise ChainError(f"anvil ended at once ({process.returncode}): {said}")
            try:
                _ = chain.chain_id
            except ChainUnavailable as error:
                if time.monotonic() > deadline:
                    raise ChainError(f"anvil did not answer at {url}") from error
                time.sleep(_POLL_S)
            else:
                return
    finally:
        chain.close()


def _set_clock(config: AnvilConfig) -> None:
    endpoint = Endpoint(
        f"http://{config.host}:{config.port}", timeout_s=START_TIMEOUT_S, expected_chain_id=None
    )
    try:
        endpoint.ask("evm_setTime", system_clock() // 1_000)
    finally:
        endpoint.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
