"""A short run of `scripts/reorgs`, and that it hears what it listens for."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from engine.chain.indexer import REORG_DEPTH_MAX, Indexer
from tests.chain import reorgs
from tests.chain.killed_reader import drop
from tests.chain.reorgs import WAYS, Differs, Rounds, planned, prepared, run

DEPTHS = (1, REORG_DEPTH_MAX)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    structlog.configure(processors=[drop])


def test_every_way_at_the_shortest_and_the_deepest_leaves_what_a_clean_reading_gives() -> None:
    plan = [(way, depth) for depth in DEPTHS for way in WAYS]
    plan.append(("reorg", REORG_DEPTH_MAX - 1))
    random.Random(20261121).shuffle(plan)
    figures = run(20261121, plan)
    assert sum(figures[f"rounds by {way}"] for way in WAYS) == len(plan)
    assert figures["engines killed"] > 0
    assert figures["events compared"] > 0
    for state in ("active", "mismatch", "registering", "revoked"):
        assert figures[f"sessions found {state}"] > 0


def test_a_plan_has_every_depth() -> None:
    assert sorted(depth for _, depth in planned(7, 64, 64, WAYS)) == list(range(1, 65))
    assert {way for way, _ in planned(7, 64, 64, WAYS)} == set(WAYS)


def test_two_forks_that_come_and_go_leave_what_a_clean_reading_gives(tmp_path: Path) -> None:
    """A balancer in front of nodes that do not agree: each time the other has other blocks."""
    with prepared(tmp_path, random.Random(6)) as made:
        made.round("switch", 5)
        made.round("switch", made.chains.above())
        for _ in range(5):
            made.chains.flap()
            made.look()
        assert made.figures["comparisons"] > 5


def dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are kept no more after a way back."""
    monkeypatch.setattr(Indexer, "_below", lambda _indexer, _tip: [])


def stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that hears of nothing that happened to it."""
    honest = Indexer._store

    def deaf(self: Indexer, *arguments: object) -> None:
        listen, self._on_change = self._on_change, lambda _batch, _tip, _subjects: None
        honest(self, *arguments)  # type: ignore[arg-type]
        self._on_change = listen

    monkeypatch.setattr(Indexer, "_store", deaf)


@pytest.mark.parametrize("fault", [dropped, stuck])
def test_a_fault_is_heard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    monkeypatch.setattr(reorgs, "KILLED", 0.0)
    monkeypatch.setattr(reorgs, "LOOKS_BETWEEN", 1.0)
    with prepared(tmp_path, random.Random(1)) as made:
        made.look()
        fault(monkeypatch)
        with pytest.raises(Differs):
            roll_back_often(made)


def roll_back_often(made: Rounds) -> None:
    for depth in (7, 5, 3):
        made.round("rollback", depth)
