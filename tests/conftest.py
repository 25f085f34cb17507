"""What all tests share."""

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from httpx import create_ssl_context
from httpx._transports import default as httpx_transports
from hypothesis import settings
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from engine.sessions.vault import Vault
from tests.world import World

ROOT = Path(__file__).parents[1]
# They take the longest, and a file is one process's: begun first, none of them is waited for.
BEGIN_FIRST = (
    "tests/test_demo.py",
    "tests/durability/test_migrations.py",
    "tests/contracts/test_forge.py",
    "tests/ledger/test_killed.py",
    "tests/simulation/test_simulate.py",
    "tests/test_bench.py",
    "tests/docs/test_readme.py",
    "tests/rest/test_access.py",
    "tests/fsck/test_postgres.py",
    "tests/chain/test_reorgs.py",
)

pytest_plugins = ["tests.server_fixtures"]

# A loaded machine makes a single example slow; no test here is about time.
settings.register_profile("tallystick", deadline=None)
settings.load_profile("tallystick")


@pytest.fixture(scope="session", autouse=True)
def _paid_for_once() -> Iterator[None]:
    """What a passphrase gives (a tenth of a second, by intent), the trusted certificates, and SQL.

    SQLAlchemy compiles each statement anew for each engine, and keeps it by the engine's dialect: a
    server has one of them, the tests thousands, and one dialect is as another of its kind.
    """
    compiled: LRUCache[object, object] = LRUCache(2_000)
    with pytest.MonkeyPatch.context() as patch:
        shared = property(lambda _: compiled, lambda *_: None)
        patch.setattr(Engine, "_compiled_cache", shared, raising=False)
        for dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
            patch.setattr(dialect, "__eq__", lambda self, other: type(self) is type(other))
            patch.setattr(dialect, "__hash__", lambda self: hash(type(self)))
        patch.setattr(Vault, "from_passphrase", functools.lru_cache(Vault.from_passphrase))
        patch.setattr(httpx_transports, "create_ssl_context", functools.cache(create_ssl_context))
        with create_engine("sqlite://").connect() as connection:
            connection.execute(select(1))
        assert compiled, "it is kept elsewhere by now"
        yield


@pytest.fixture(autouse=True)
def _logs_as_it_was() -> Iterator[None]:
    """Have no test decide what the next one in its process logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh installation."""
    opened = World(tmp_path / "data")
    yield opened
    opened.engine.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others stay in their order."""
    first = {ROOT / name: place for place, name in enumerate(BEGIN_FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish() -> None:
    """Have what stays, thousands of tests and all modules, looked through no more for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


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
