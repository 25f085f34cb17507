"""The demonstration is true: it ends with 0 if every step held, and with 1 if one did not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "scripts" / "demo.py"
COLUMNS = 80


def demonstrate(script: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; the evidence goes into `directory`."""
    kept = {name: value for name, value in os.environ.items() if "TALLYSTICK" not in name}
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=directory,
        env=kept | {"COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("chain", ["embedded", "anvil"])
def test_every_step_holds(tmp_path: Path, chain: str) -> None:
    done = demonstrate(DEMO, tmp_path, "--chain", chain)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "Every step held."
    assert [line for line in lines if len(line) > COLUMNS] == []
    words = done.stdout.split()
    for word, times in (
        ("ALLOWED", 4),
        ("LIMIT_EXCEEDED", 2),
        ("APPROVAL_REQUIRED", 1),
        ("MERCHANT_NOT_ALLOWED", 1),
        ("SESSION_REVOKED:", 1),
        ("VERIFIED", 1),
        ("TAMPERED:", 1),
    ):
        assert words.count(word) == times
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written.keys() == {"evidence.json", "evidence-edited.json"}
    pairs = zip(written["evidence.json"], written["evidence-edited.json"], strict=True)
    assert [(was, is_) for was, is_ in pairs if was != is_] == [(ord("2"), ord("1"))]


@pytest.mark.parametrize(
    ("line", "becomes", "said"),
    [
        (
            '("books.example", "60", "LIMIT_EXCEEDED")',
            '("books.example", "60", "ALLOWED")',
            "books.example $60 is answered ALLOWED, not LIMIT_EXCEEDED",
        ),
        ("content[place] - 1", "content[place]", "the edited copy is refused as tampered"),
    ],
    ids=["another answer is expected", "an edit that changes nothing"],
)
def test_a_step_that_does_not_hold_is_said(
    tmp_path: Path, line: str, becomes: str, said: str
) -> None:
    text = DEMO.read_text()
    assert text.count(line) == 1
    (tmp_path / "scripts").mkdir()
    sabotaged = tmp_path / "scripts" / "demo.py"
    sabotaged.write_text(text.replace(line, becomes))
    done = demonstrate(sabotaged, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert " ".join(done.stdout.split()).endswith(f"This did not hold: {said}")


def test_a_chain_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    """A copy without an anvil.toml beside it."""
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "demo.py"
    script.write_text(DEMO.read_text())
    done = demonstrate(script, tmp_path, "--chain", "anvil")
    assert (done.returncode, done.stderr) == (1, "")
    assert "chain_error: " in done.stdout
    assert "anvil.toml" in done.stdout
