"""When an engine ticks: on time, when it is woken, and again while something is left to do."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.ticker import GIVE_WAY_S, Ticker

POLL_S = 3_600.0
"""So long that a test that had to wait for it would not end."""


class Stopping(threading.Event):
    """Remembers how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return self.is_set()


class Ticks:
    """Counts them. The first ones leave work to the next, and one of them may stop the engine."""

    def __init__(self, behind: int, **lead: Any) -> None:
        self.count = 0
        self.behind = behind
        self.stop_at: int | None = None
        self.stopping = Stopping()
        self.ended = threading.Event()
        self.lead = SimpleNamespace(
            **{"leads": True, "chain_fault": None, "database_silent": False, **lead}
        )
        self.ticker = Ticker(
            self.tick,
            self.lead,  # type: ignore[arg-type]
            self.stopping,
            poll_s=POLL_S,
            anchor_s=0,
        )

    def tick(self, anchor: bool) -> bool:
        assert not anchor
        self.count += 1
        if self.count == self.stop_at:
            self.stopping.set()
        if self.count > self.behind:
            self.ended.set()
        return self.count <= self.behind


def test_it_catches_up_and_lets_others_tick_in_between() -> None:
    ticks = Ticks(behind=3)
    ticks.ticker.catch_up()
    assert ticks.count == 4
    assert ticks.stopping.waited == [GIVE_WAY_S] * 3


def test_a_silent_chain_is_not_waited_for_again_and_again() -> None:
    ticks = Ticks(behind=9, chain_fault="it does not answer")
    ticks.ticker.catch_up()
    assert ticks.count == 1


def test_who_does_not_lead_leaves_the_time_to_who_does() -> None:
    ticks = Ticks(behind=0, leads=False)
    ticks.ticker.catch_up()
    assert (ticks.count, ticks.stopping.waited) == (1, [2 * POLL_S])


@pytest.mark.parametrize("behind", [9, 1], ids=["in the middle", "with the last"])
def test_an_engine_that_stops_catches_up_no_further(behind: int) -> None:
    ticks = Ticks(behind)
    ticks.stop_at = 2
    with pytest.raises(Unavailable, match="the engine is stopping"):
        ticks.ticker.catch_up()
    assert ticks.count == 2


def test_on_its_thread_it_rests_only_when_nothing_is_left() -> None:
    ticks = Ticks(behind=3)
    ticks.ticker.start()
    assert ticks.ended.wait(60)
    assert ticks.stopping.waited == [GIVE_WAY_S] * 3
    ticks.ended.clear()
    ticks.ticker.wake()
    assert ticks.ended.wait(60)
    assert ticks.stopping.waited == [GIVE_WAY_S] * 3, "who waits for it does not wait for that, too"
    ticks.stopping.set()
    ticks.ticker.join()


@pytest.mark.parametrize(
    ("silent", "fault"),
    [(False, "the chain could not be followed: ZeroDivisionError()"), (True, None)],
)
def test_a_tick_that_fails_is_told_and_not_the_last(silent: bool, fault: str | None) -> None:
    """What a silent database keeps from being done is no doubt about the chain."""
    ticks = Ticks(behind=0, database_silent=silent)

    def fail(_anchor: bool) -> bool:
        ticks.ticker._tick = ticks.tick
        raise ZeroDivisionError

    ticks.ticker._tick = fail
    ticks.ticker.start()
    ticks.ticker.wake()
    assert ticks.ended.wait(60)
    assert ticks.lead.chain_fault == fault
    ticks.stopping.set()
    ticks.ticker.join()
