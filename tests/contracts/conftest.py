"""Forge, as `scripts/setup dev` installed it, writing to a directory of its own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts"


@pytest.fixture(scope="session")
def forge_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where forge writes what it compiled; empty at first, so that it does compile."""
    return tmp_path_factory.mktemp("forge")


@pytest.fixture(scope="session")
def forge(forge_out: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run forge in contracts/; `build` and `test` with the compiler of the artifacts."""
    # The binary itself: npm's node_modules/.bin/forge exits with 0 whatever forge found.
    (binary,) = (CONTRACTS / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge*")
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    compiling = (
        *("--use", ROOT / "scripts" / "solc"),
        *("--out", forge_out, "--cache-path", forge_out / "cache"),
    )

    def run(command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(binary, command, "--root", CONTRACTS),
                *(compiling if command in {"build", "test"} else ()),
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
        )

    return run
