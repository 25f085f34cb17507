"""The contracts' own tests, contracts/test, pass on what is deployed, and leave nothing out."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
OURS = ("AnchorRegistry", "SessionRegistry")
DEPLOYED = (*OURS, "TestUSDC")
# What the registry inherits, whose tests are OpenZeppelin's.
INHERITED = {
    *("DEFAULT_ADMIN_ROLE", "getRoleAdmin", "grantRole", "hasRole", "renounceRole", "revokeRole"),
    *("RoleAdminChanged", "RoleGranted", "RoleRevoked", "EIP712DomainChanged"),
    *("eip712Domain", "supportsInterface", "InvalidShortString", "StringTooLong"),
    *("AccessControlBadConfirmation", "AccessControlUnauthorizedAccount"),
    "SafeCastOverflowedUintDowncast",
}
# Tested where they are made, or by every test that needs them.
ELSEWHERE = {"anchors", "OPERATOR_ROLE"}


def test_every_solidity_test_passes(
    forge: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    finished = forge("test", "--json")
    assert finished.stdout.startswith("{"), finished.stdout + finished.stderr

    results = {
        f"{suite} {name}": result["reason"] or result["status"]
        for suite, report in json.loads(finished.stdout).items()
        for name, result in report["test_results"].items()
    }
    assert {test: why for test, why in results.items() if why != "Success"} == {}
    assert finished.returncode == 0, finished.stderr
    tested = {test.split("/")[1] for test in results}
    assert tested == {"AnchorRegistry", "SessionRegistry", "TestUSDC", "invariant"}


@pytest.mark.parametrize("name", DEPLOYED)
def test_what_they_tested_is_what_is_deployed(
    name: str, forge: Callable[..., subprocess.CompletedProcess[str]], forge_out: Path
) -> None:
    finished = forge("build", "--skip", "test")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    ours = json.loads((CONTRACTS / "artifacts" / f"{name}.json").read_text())
    forges = json.loads((forge_out / f"{name}.sol" / f"{name}.json").read_text())
    assert ours["contractName"] == name
    assert ours["bytecode"] == forges["bytecode"]["object"]
    assert ours["deployedBytecode"] == forges["deployedBytecode"]["object"]
    assert by_text(ours["abi"]) == by_text(forges["abi"])


def by_text(abi: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in abi)


def test_sources_are_formatted(forge: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = forge("fmt", "--check")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def declared(name: str, kind: str) -> set[str]:
    """The functions, events or errors of a contract that are its own."""
    artifact: dict[str, Any] = json.loads((CONTRACTS / "artifacts" / f"{name}.json").read_text())
    return {item["name"] for item in artifact["abi"] if item["type"] == kind} - INHERITED


@pytest.mark.parametrize("name", OURS)
def test_every_function_has_a_file_of_tests(name: str) -> None:
    files = {path.name.removesuffix(".t.sol") for path in (CONTRACTS / "test" / name).iterdir()}
    functions = {
        "domainSeparator" if function == "DOMAIN_SEPARATOR" else function
        for function in declared(name, "function") - ELSEWHERE
    }
    assert functions - files == set()


@pytest.mark.parametrize("name", OURS)
def test_every_event_is_expected_by_a_test_of_its_name(name: str) -> None:
    sources = "".join(path.read_text() for path in (CONTRACTS / "test" / name).iterdir())
    expected = set(
        re.findall(rf"expectEmit\(address\(registry\)\);\s+emit I{name}\.(\w+)\(", sources)
    )
    assert expected == declared(name, "event")


@pytest.mark.parametrize("name", OURS)
def test_every_error_is_provoked(name: str) -> None:
    sources = "".join(path.read_text() for path in (CONTRACTS / "test" / name).iterdir())
    provoked = set(re.findall(rf"I{name}\.(\w+)\.selector", sources))
    assert declared(name, "error") - provoked == set()
