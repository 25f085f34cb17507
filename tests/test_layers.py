"""The rules about imports and sizes hold, and would be heard if they did not."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "api", "tallystick")
FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    lint = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [lint, "--no-logo", "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(directory), "PATH": ""},
    )


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("engine/policy/decide.py", "import time", "The pure parts do no input or output"),
        ("engine/audit/verify.py", "import sqlalchemy", "The pure parts do no input or output"),
        ("engine/ledger/ledger.py", "import fastapi", "The engine knows no web framework"),
        ("engine/ledger/ledger.py", "import api.server", "Imports go one way"),
        ("engine/policy/limits.py", "import engine.db.tables", "rooms stand on each other"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, line: str, rule: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    planted.write_text(planted.read_text() + f"\n{line}\n")
    checked = lint_imports(tmp_path)
    assert checked.returncode != 0
    assert re.search(rf"{rule}.* BROKEN", checked.stdout)


def python_files() -> list[Path]:
    folders = (*PACKAGES, "bench", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_no_file_is_too_long_to_read() -> None:
    too_long = {
        str(path): length
        for path in python_files()
        if "migrations" not in path.parts  # generated, one statement after the other
        for length in [len(path.read_text().splitlines())]
        if length > (TEST_FILE_LINES_MAX if "tests" in path.parts else FILE_LINES_MAX)
    }
    assert too_long == {}


def test_every_directory_of_tests_is_a_package() -> None:
    """In one that is none, what a fixture of the scope "package" started runs until all tests end:
    servers that nobody asks any more, for minutes."""
    directories = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [each for each in directories if not (each / "__init__.py").exists()] == []


def test_no_function_is_too_long_to_read() -> None:
    too_long = [
        f"{path}:{node.lineno} {node.name}"
        for package in (*PACKAGES, "bench")
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


NOT_CHOSEN = (
    *("alembic", "api.studio.app", "engine.audit.verify", "eth", "eth_account", "eth_tester"),
    *("httpx", "jinja2", "prometheus_client", "psycopg", "requests", "web3", "x402"),
)
LARGE = ("api", "cryptography", "engine.engine", "fastapi", "sqlalchemy", "starlette", "uvicorn")


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        # A start on SQLite needs none of these, on whichever chain, and each takes long.
        ("tallystick.cli, api.server, engine.engine", NOT_CHOSEN),
        # The data file is looked at while the rest is imported: nothing large may come before.
        ("tallystick.cli, engine.db.claim, engine.settings", LARGE),
    ],
    ids=["a start", "the claim"],
)
def test_what_takes_long_is_not_imported_for_nothing(
    imported: str, unwanted: tuple[str, ...]
) -> None:
    script = f"import sys, {imported}; print({set(unwanted)!r} & sys.modules.keys())"
    run = (sys.executable, "-c", script)
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
