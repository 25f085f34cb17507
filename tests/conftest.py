"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.world import World

pytest_plugins = ["tests.server_fixtures"]

# A loaded machine makes a single example slow; no test here is about time.
settings.register_profile("tallystick", deadline=None)
settings.load_profile("tallystick")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh installation."""
    opened = World(tmp_path / "data")
    yield opened
    opened.engine.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name at the end what this machine could not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not run on this machine")
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, what was not run has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
