"""What a machine cannot show is left out on it, and named at the end: what traces a process needs
strace(1), what mounts a file system of its own the right to.

Unlike a skipped test that is no failure in CI: all else comes from pip and npm, which have none.
"""

import os
import shutil
import subprocess
from functools import cache

import pytest

LEFT_OUT = pytest.StashKey[list[str]]()
TRACED = ("recording", "every_call")


@cache
def unsharing() -> list[str]:
    """What runs a command with mounts of its own (unshare(1)); empty where that is not allowed."""
    how = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    trial = [*how, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        done = subprocess.run(trial, capture_output=True, check=False)
    except OSError:
        return []
    return how if done.returncode == 0 else []


@pytest.fixture
def own_mounts() -> list[str]:
    """See `unsharing`."""
    return unsharing()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here."""
    without = {item.nodeid: why for item in items if (why := _missing(_fixtures(item)))}
    items[:] = [item for item in items if item.nodeid not in without]
    config.stash[LEFT_OUT] = [f"{name}: left out, {why}" for name, why in without.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name it."""
    for line in terminalreporter.config.stash.get(LEFT_OUT, []):
        terminalreporter.line(line)


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


def _missing(fixtures: tuple[str, ...]) -> str | None:
    if set(fixtures) & set(TRACED) and shutil.which("strace") is None:
        return "strace is not installed"
    if "own_mounts" in fixtures and not unsharing():
        return "nothing may be mounted"
    return None
