"""One round of `scripts/kill-gate`, where what it looks for is most likely."""

import subprocess
import sys
from pathlib import Path

STEP_SETTLED = 8
"""The payment is on the chain, and nobody has noted that."""


def test_one_killed_after_settling_and_a_hundred_at_once_by_four_processes() -> None:
    how = ["--rounds", "1", "--shared", "--times", "25", "--step", str(STEP_SETTLED)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gate.kill_gate", *how],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "seed 7: 1 PostgreSQL, 1 answers: 1, 1 killed\n"
