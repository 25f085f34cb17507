"""`tallystick reconcile`: what it prints, and its exit status by the worst that is open."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.server import Server
from engine.chain.gateway import ChainUnavailable
from engine.db.tables import Anchor, ChainEvent, table
from engine.ledger.discrepancies import Discrepancy
from engine.reconcile.reconciler import Reading
from engine.reconcile.sides import ChainSide
from tests.cli.processes import COMMAND, PATIENCE_S, Done, called, environment, tallystick
from tests.cli.terminal import on_a_terminal
from tests.world import World


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[World, str]]:
    """A server in this process, so that a test can change what it compares; and its URL."""
    world = World(tmp_path / "data")
    with Server(world.engine, "127.0.0.1", 0) as server:
        yield world, server.url
    world.engine.close()


def reconcile(served: tuple[World, str], *arguments: str) -> Done:
    """In a process of its own, since the server here logs to the same output."""
    world, url = served
    return tallystick("reconcile", *arguments, url=url, api_key=world.operator_key or "")


def test_nothing_differs(served: tuple[World, str]) -> None:
    done = reconcile(served)
    assert (done.returncode, done.stderr) == (0, "")
    head = served[0].engine.gateway.head().number
    assert done.stdout == (
        f"no discrepancies; blocks 3 to {head} compared, the index is 0 behind the chain; "
        "0 new, 0 resolved, 0 sessions tightened\n"
    )
    assert json.loads(reconcile(served, "--json").stdout)["open"] == []


def test_something_critical_is_listed(served: tuple[World, str]) -> None:
    world, _ = served
    gone = sa.delete(table(ChainEvent)).where(table(ChainEvent).c.name == "LogOpened")
    world.engine.writer.call(lambda batch: batch.update(gone))
    done = reconcile(served)
    assert (done.returncode, done.stderr) == (1, "")
    heading, line, last = done.stdout.splitlines()
    assert heading.split() == ["SEVERITY", "KIND", "SUBJECT", "SINCE", "MEANING"]
    assert line.split()[:2] == ["critical", "index_differs"]
    assert last.startswith("1 open; ")
    [found] = json.loads(reconcile(served, "--json").stdout)["open"]
    assert found["subject"] in line
    assert reconcile(served, "--from-block", "1000000").returncode == 1, "it is open still"


def test_a_warning_has_a_status_of_its_own(served: tuple[World, str]) -> None:
    world, _ = served
    anchors = table(Anchor)
    for _ in range(2):
        world.pay(world.create(mint_pkp=False), 1)
        world.engine.anchor()
    first = sa.select(sa.func.min(anchors.c.size)).scalar_subquery()
    moved = sa.update(anchors).where(anchors.c.size == first).values(block_number=1)
    world.engine.writer.call(lambda batch: batch.update(moved))
    done = reconcile(served)
    assert (done.returncode, done.stderr) == (3, "")
    assert "anchor_reorged" in done.stdout


def test_a_silent_chain_has_a_status_of_its_own(
    served: tuple[World, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> None:
        raise ChainUnavailable("the line was cut")

    monkeypatch.setattr(served[0].engine.gateway, "head", silent)
    done = reconcile(served)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "chain_unavailable: the line was cut\n"


def test_other_failures_have_the_usual_status(served: tuple[World, str]) -> None:
    _, url = served
    assert called("reconcile", url=url, api_key="zfi_test_nobody").returncode == 1
    assert called("reconcile", "--from-block", "-1", url=url, api_key="x").returncode == 2


def test_a_terminal_sees_a_bar_while_a_long_range_is_read(
    served: tuple[World, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world, url = served
    reconciler = world.engine.reconciler
    read, opened, asked = reconciler._chain.read, reconciler.open, threading.Event()

    def read_slowly(*how: Any, **options: Any) -> ChainSide:
        """As of a chain of ten thousand blocks: until somebody has asked how far it is."""
        reconciler.reading = Reading(1, 10_000, 4_000)
        asked.clear()
        assert asked.wait(PATIENCE_S)
        return read(*how, **options)

    def look() -> list[Discrepancy]:
        asked.set()
        return opened()

    monkeypatch.setattr(reconciler._chain, "read", read_slowly)
    monkeypatch.setattr(reconciler, "open", look)
    environ = environment(url=url, api_key=world.operator_key or "")
    status, seen = on_a_terminal([COMMAND, "reconcile"], 100, environ, tmp_path)
    assert status == 0
    assert "4000/10000" in seen
    assert "no discrepancies" in seen
