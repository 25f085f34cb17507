"""The demonstration is true: it ends with 0 if every step held, and with 1 if one did not."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import ANSI, environment
from tests.cli.terminal import on_a_terminal

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "scripts" / "demo.py"
COLUMNS = 80


def demonstrate(script: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; the evidence goes into `directory`."""
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=directory,
        env=environment() | {"COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_every_step_holds_on_anvil(tmp_path: Path) -> None:
    done = demonstrate(DEMO, tmp_path, "--chain", "anvil")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4_000:]
    lines = done.stdout.splitlines()
    assert lines[1].strip("│ ") == "Tallystick: one session's whole life, on Anvil"
    assert lines[-1] == "Every step held."
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert "\x1b" not in done.stdout
    words = done.stdout.split()
    for word, times in (
        ("ALLOWED", 5 + 3),
        ("LIMIT_EXCEEDED", 2 + 1),
        ("APPROVAL_REQUIRED", 1),
        ("MERCHANT_NOT_ALLOWED", 1),
        ("SESSION_REVOKED:", 1),
        ("VERIFIED", 1),
        ("TAMPERED:", 1),
    ):
        assert words.count(word) == times
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written.keys() == {"evidence.json", "evidence-edited.json", "evidence-402.json"}
    said = " ".join(words)
    assert re.search(r"spends ✓ 3 payments on eip155:\d+, each by its record's nonce", said)
    assert "spends tampered 1 on the chain without a record that allows it" in said
    pairs = zip(written["evidence.json"], written["evidence-edited.json"], strict=True)
    assert [(was, is_) for was, is_ in pairs if was != is_] == [(ord("2"), ord("1"))]


def test_on_the_embedded_chain_it_can_be_read_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    status, seen = on_a_terminal([sys.executable, DEMO], COLUMNS, environment(), tmp_path)
    assert status == 0
    assert "one session's whole life, on the embedded chain" in seen
    assert ANSI.sub("", seen).rstrip().endswith("Every step held.")
    assert "\x1b[32m✓" in seen
    lines = [line for part in ANSI.sub("", seen).splitlines() for line in part.split("\r")]
    assert [line for line in lines if len(line) > COLUMNS] == []
    payments = [line for line in lines if re.match(r"  (books|data|casino)\.example", line)]
    assert len(payments) == 9
    points = {tuple(at.start() for at in re.finditer(r"\.\d", line)) for line in payments}
    assert len(points) == 1, "the amounts stand below each other"
    assert len(next(iter(points))) == 2
    verified = [line for line in lines if re.match(r" [ 0-9]{2}  \w+ +(✓|tampered)", line)]
    assert len(verified) >= 13
    places = {line.index("✓") for line in verified if "✓" in line}
    assert len(places) == 1
    folded = [len(line) - len(line.lstrip()) for line in lines if line.startswith(" " * 5)]
    assert set(folded) <= {14, places.pop() + 2, 28}, (
        "below the reason, or a hash as far as it fits"
    )


def test_where_it_cannot_write_it_says_so_and_fails(tmp_path: Path) -> None:
    done = demonstrate(DEMO, tmp_path, "--output", "no/such/directory.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert "no/such/" in "".join(done.stdout.splitlines())
    assert "✓" not in done.stdout


def test_an_interrupted_one_did_not_hold(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", DEMO],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "Register the agent" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "Interrupted."
        assert process.stderr.read() == ""
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("line", "becomes", "said"),
    [
        ("content[place] - 1", "content[place]", "the edited copy is refused as tampered"),
    ],
    ids=["an edit that changes nothing"],
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
    assert "anvil.toml" in "".join(line.strip("│ ") for line in done.stdout.splitlines())
