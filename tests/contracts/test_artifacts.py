"""contracts/artifacts is what the sources compile to, and what forge tests."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "contracts" / "artifacts"
NAMES = ("AnchorRegistry", "SessionRegistry", "TestUSDC")


def compile_contracts(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "compile", *options], capture_output=True, text=True, check=False
    )


def artifact(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return content


def by_text(abi: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in abi)


def test_check_accepts_what_is_checked_in() -> None:
    """Compiled again it is the same, byte for byte."""
    finished = compile_contracts("--check")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_check_names_the_files_that_differ_and_writes_nothing(tmp_path: Path) -> None:
    shutil.copytree(ARTIFACTS, tmp_path, dirs_exist_ok=True)
    changed, missing = tmp_path / "TestUSDC.json", tmp_path / "AnchorRegistry.json"
    changed.write_text(changed.read_text() + "\n")
    missing.unlink()
    before = changed.read_text()

    finished = compile_contracts("--check", "--artifacts", tmp_path)

    assert finished.returncode == 1
    assert str(changed) in finished.stderr
    assert str(missing) in finished.stderr
    assert "SessionRegistry" not in finished.stderr
    assert changed.read_text() == before
    assert not missing.exists()


@pytest.fixture(scope="module")
def forge_build(
    forge: Callable[..., subprocess.CompletedProcess[str]], forge_out: Path
) -> dict[str, dict[str, Any]]:
    finished = forge("build", "--skip", "test")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return {
        name: json.loads((forge_out / f"{name}.sol" / f"{name}.json").read_text()) for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_forge_builds_the_same(name: str, forge_build: dict[str, dict[str, Any]]) -> None:
    ours, forges = artifact(name), forge_build[name]
    assert ours["contractName"] == name
    assert ours["bytecode"] == forges["bytecode"]["object"]
    assert ours["deployedBytecode"] == forges["deployedBytecode"]["object"]
    assert by_text(ours["abi"]) == by_text(forges["abi"])


@pytest.mark.parametrize("name", NAMES)
def test_fits_on_a_chain(name: str) -> None:
    """EIP-170: deployed code of at most 24,576 bytes; EIP-3860: twice that to deploy."""
    assert 0 < len(bytes.fromhex(artifact(name)["deployedBytecode"][2:])) <= 24_576
    assert 0 < len(bytes.fromhex(artifact(name)["bytecode"][2:])) <= 2 * 24_576


@pytest.mark.parametrize("name", NAMES)
def test_every_error_says_what_was_wrong(name: str) -> None:
    """Errors of ours have arguments; the two without are OpenZeppelin's."""
    bare = {
        item["name"]
        for item in artifact(name)["abi"]
        if item["type"] == "error" and not item["inputs"]
    }
    assert bare <= {"AccessControlBadConfirmation", "InvalidShortString"}
