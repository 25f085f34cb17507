"""Who could not be ended is left out for a minute; a database that failed is not asked again."""

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from engine.errors import Unavailable
from engine.ledger import sweep
from engine.ledger.batch import Batch
from engine.ledger.sweep import AGAIN_MS, Sweep
from tests.world import World

STORES = ("sqlite",)


class Things:
    """Things that are over by their names; those in `damaged` cannot be ended."""

    def __init__(self, world: World, names: str) -> None:
        self.over = list(names)
        self.damaged: set[str] = set()
        self.tried = ""
        self.sweep = Sweep(world.engine.writer, self.due, self.end)

    def due(self, _batch: Batch, but: Any) -> dict[str, str]:
        return {name: name.upper() for name in self.over if name not in but}

    def end(self, batch: Batch, name: str, found: str) -> int:
        assert found == name.upper()
        self.tried += name
        batch.writes += 1  # so that it cannot refuse any more
        if name in self.damaged:
            raise Unavailable(f"{name} is damaged")
        return 1

    def run(self) -> int:
        ended = self.sweep.run()
        self.over = [name for name in self.over if name in self.damaged]
        return ended


def test_who_is_damaged_is_left_out_for_a_minute(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sweep._log, "error", lambda event, **what: told.append((event, what)))
    things = Things(fresh, "abc")
    things.damaged = {"b"}
    assert things.run() == 2
    assert things.tried == "ab" + "abc", "together, then each by itself"
    assert [(event, what["what"]) for event, what in told] == [("not_ended", "b")]
    things.over.append("d")
    fresh.clock.advance(AGAIN_MS - 1)  # type: ignore[attr-defined]
    assert things.run() == 1
    assert things.tried == "ababc" + "d"
    fresh.clock.advance(1)  # type: ignore[attr-defined]
    things.damaged.clear()
    assert things.run() == 1
    assert things.tried == "ababcd" + "b"
    assert len(told) == 1


def test_a_database_that_failed_is_not_asked_for_each(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = Things(fresh, "abc")
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"

    def end(_batch: Batch, name: str, _found: str) -> int:
        things.tried += name
        raise sa.exc.OperationalError("INSERT", {}, full)

    monkeypatch.setattr(things.sweep, "_end", end)
    with pytest.raises(Unavailable, match="could not be made durable"):
        things.sweep.run()
    assert things.tried == "a"


def test_a_writer_that_stopped_says_so(fresh: World) -> None:
    things = Things(fresh, "abc")
    fresh.engine.writer.stop()
    with pytest.raises(Unavailable, match="the engine is stopping"):
        things.run()
    assert things.tried == ""
