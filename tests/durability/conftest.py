"""What only a machine with strace(1) can show is left out on others, and named at the end.

Unlike a skipped test that is no failure in CI: all else comes from pip and npm, which have none.
"""

import shutil

import pytest

LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what traces a server."""
    left_out: list[str] = []
    if shutil.which("strace") is None:
        left_out = [
            item.nodeid for item in items if "recording" in getattr(item, "fixturenames", ())
        ]
        items[:] = [item for item in items if item.nodeid not in left_out]
    config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name it."""
    for name in terminalreporter.config.stash.get(LEFT_OUT, []):
        terminalreporter.line(f"{name}: left out, strace is not installed")


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))
