"""`scripts/setup` says what went wrong in one line; what it runs is the real pip and npm."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:1/"


class Copy:
    """A copy of what the script reads, with a `.venv` that is not ours."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "copy"
        self.logs = directory / "logs"
        self.logs.mkdir()
        for name in ("scripts/setup", "pyproject.toml", "scripts/requirements", "contracts"):
            source, copied = ROOT / name, self.directory / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("node_modules", "out", "cache")
                shutil.copytree(source, copied, ignore=ignored)
            else:
                shutil.copy(source, copied)

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script with next to no environment."""
        known = {"HOME": str(self.logs), "PATH": os.environ["PATH"], "TMPDIR": str(self.logs)}
        return subprocess.run(
            [shutil.which("bash") or "bash", self.directory / "scripts" / "setup", *arguments],
            env=known | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pretend_installed(self, kind: str) -> None:
        """A `.venv` with npm in it, and the note that Python's packages are there."""
        commands = self.directory / ".venv" / "bin"
        commands.mkdir(parents=True)
        for name in ("node", "npm"):
            (commands / name).symlink_to(ROOT / ".venv" / "bin" / name)
        files = ("pyproject.toml", "scripts/setup", f"scripts/requirements/{kind}.txt")
        content = b"".join((self.directory / name).read_bytes() for name in files)
        note = self.directory / ".venv" / f".installed-{kind}"
        note.write_text(hashlib.sha256(content).hexdigest() + "\n")


@pytest.fixture
def setup(tmp_path: Path) -> Copy:
    """A copy to run."""
    return Copy(tmp_path)


def failed(done: subprocess.CompletedProcess[str], what: str) -> tuple[str, str]:
    """The cause that was told, and what the log holds, after checking that there is no more."""
    assert (done.returncode, done.stdout) == (1, "")
    doing, told = done.stderr.splitlines()
    assert doing.startswith("setup: installing locked ")
    parts = re.fullmatch(rf"setup: {what} failed: (.+) \(log: (\S+)\)", told)
    assert parts is not None, told
    return parts[1], Path(parts[2]).read_text()


def test_a_pip_that_cannot_fetch_is_told_with_its_log(setup: Copy) -> None:
    done = setup(PIP_INDEX_URL=NOWHERE, PIP_RETRIES="0", PIP_NO_CACHE_DIR="1")
    cause, log = failed(done, "pip install")
    assert cause in log
    assert "ERROR: " in cause or "Connection refused" in cause
    assert not list((setup.directory / ".venv").glob(".installed-*"))


def test_a_pip_that_distrusts_a_hash_is_told(setup: Copy) -> None:
    wheel = setup.logs / "wheels" / "a-1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"not what was locked")
    requirements = setup.directory / "scripts" / "requirements" / "run.txt"
    requirements.write_text(f"a @ file://{wheel} --hash=sha256:{'0' * 64}\n")
    cause, log = failed(setup(), "pip install")
    assert cause.startswith("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")
    assert hashlib.sha256(b"not what was locked").hexdigest() in log


def test_an_npm_that_cannot_fetch_is_told_with_its_log(setup: Copy) -> None:
    setup.pretend_installed("dev")
    known = {"npm_config_registry": NOWHERE, "npm_config_fetch_retries": "0"}
    cause, log = failed(setup("dev", **known), "npm install")
    assert "ECONNREFUSED" in cause
    assert cause in log
    assert not (setup.directory / "contracts" / "node_modules" / ".installed").exists()


def test_what_is_installed_is_not_installed_again_and_leaves_no_log(setup: Copy) -> None:
    setup.pretend_installed("run")
    done = setup()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(setup.logs.iterdir()) == []


def test_a_machine_without_python_is_told(setup: Copy, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "cat", "sha256sum", "cut", "mktemp", "grep", "rm"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = setup(PATH=str(tools))
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "setup: Python 3.11 or newer is needed and was not found on PATH"
    ]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_it_explains_itself(setup: Copy, option: str) -> None:
    done = setup(option)
    assert (done.returncode, done.stderr) == (0, "")
    assert "scripts/setup dev " in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 90
    assert "set -" not in done.stdout


@pytest.mark.parametrize("arguments", [("devv",), ("run", "dev"), ("--dev",), ("",)], ids=" ".join)
def test_another_argument_is_refused(setup: Copy, arguments: tuple[str, ...]) -> None:
    done = setup(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.endswith(f"not '{' '.join(arguments)}' (see ./scripts/setup --help)")
    assert not (setup.directory / ".venv").exists()
