"""contracts/artifacts is what the sources compile to."""

import functools
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "contracts" / "artifacts"
NAMES = ("AnchorRegistry", "SessionRegistry", "TestUSDC")


@pytest.fixture(scope="module")
def compiler() -> Iterator[ModuleType]:
    """`scripts/compile`, which compiles once for all that is asked of it."""
    loader = SourceFileLoader("compile_contracts", str(ROOT / "scripts" / "compile"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "artifacts", functools.cache(module.artifacts))
        yield module


@pytest.fixture
def run(compiler: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Call it with arguments; its exit status."""

    def called(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["compile", *map(str, arguments)])
        return int(compiler.main())

    return called


def artifact(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return content


def test_check_accepts_what_is_checked_in(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiled again it is the same, byte for byte."""
    assert (run("--check"), capsys.readouterr()) == (0, ("", ""))


def test_check_names_the_files_that_differ_and_writes_nothing(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(ARTIFACTS, tmp_path, dirs_exist_ok=True)
    changed, missing = tmp_path / "TestUSDC.json", tmp_path / "AnchorRegistry.json"
    changed.write_text(changed.read_text() + "\n")
    missing.unlink()
    before = changed.read_text()

    assert run("--check", "--artifacts", tmp_path) == 1

    said = capsys.readouterr().err
    assert str(changed) in said
    assert str(missing) in said
    assert "SessionRegistry" not in said
    assert changed.read_text() == before
    assert not missing.exists()


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
