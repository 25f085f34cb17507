"""Every test begins with a copy of one installation: its story takes long to tell."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sessions.session import SessionView
from tests.reconcile.story import story
from tests.world import World


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, SessionView]:
    """An installation with a story, closed again, and the session of it that is active."""
    opened = World(tmp_path_factory.mktemp("told") / "data")
    view = story(opened)
    opened.engine.close()
    return opened, view


@pytest.fixture
def world(told: tuple[World, SessionView], tmp_path: Path) -> Iterator[World]:
    """An installation of which there is a story."""
    original, _ = told
    shutil.copytree(original.settings.data_dir, tmp_path / "data")
    opened = World(tmp_path / "data")
    opened.owner = original.owner
    yield opened
    opened.engine.close()


@pytest.fixture
def view(told: tuple[World, SessionView]) -> SessionView:
    """The session of the story that is active."""
    return told[1]
