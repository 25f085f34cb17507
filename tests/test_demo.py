"""The demonstration holds on both chains, and says so when a step does not."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "demo.py"


def run_demo(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tools = Path(sys.executable).parent
    return subprocess.run(
        [sys.executable, SCRIPT, "--output", directory / "evidence.json", *arguments],
        cwd=directory,
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.mark.parametrize("chain", ["embedded", "anvil"])
def test_every_step_holds(tmp_path: Path, chain: str) -> None:
    done = run_demo(tmp_path, "--chain", chain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "VERIFIED" in done.stdout
    assert "TAMPERED: " in done.stdout
    assert done.stdout.rstrip().endswith("Every step held.")
    assert (tmp_path / "evidence.json").exists()


def test_a_step_that_does_not_hold_is_named(tmp_path: Path) -> None:
    sabotaged = tmp_path / "demo.py"
    text = SCRIPT.read_text()
    wrong = text.replace(
        '("casino.example", "10", "MERCHANT_NOT_ALLOWED")', '("casino.example", "10", "ALLOWED")'
    )
    assert wrong != text
    sabotaged.write_text(wrong)
    done = subprocess.run(
        [sys.executable, sabotaged, "--output", tmp_path / "evidence.json"],
        cwd=SCRIPT.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 1
    assert "did not hold" in done.stdout
