"""The contracts' own tests, contracts/test, pass."""

import json
import subprocess
from collections.abc import Callable


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


def test_sources_are_formatted(forge: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = forge("fmt", "--check")
    assert finished.returncode == 0, finished.stdout + finished.stderr
