"""The page says what the code says."""

import re
from pathlib import Path

from engine.webhooks.attempts import ATTEMPTS_KEPT
from engine.webhooks.catalogue import EVENTS
from engine.webhooks.delivery import (
    FLYING_MAX,
    FLYING_OF_WORKSPACE_MAX,
    PROBE_MS,
    RECOVERED_FAILURES,
    WAITING_MAX,
)
from engine.webhooks.egress import DEADLINE_S
from engine.webhooks.endpoints import TESTS_MAX, TESTS_OF_WORKSPACE_MAX
from engine.webhooks.feed import (
    LISTENERS_MAX,
    LISTENERS_OF_KEY_MAX,
    LISTENERS_OF_WORKSPACE_MAX,
)
from engine.webhooks.lane import WIDTH
from engine.webhooks.schedule import ATTEMPTS_MAX, DELAYS_MS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "webhooks.md").read_text()
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000}


def test_every_event_is_listed_in_its_order() -> None:
    assert tuple(re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)) == EVENTS


def test_every_event_that_is_written_is_in_the_catalogue() -> None:
    written = {"created", "confirmed", "voided", "expired"}
    assert {name.removeprefix("payment.") for name in EVENTS if name.startswith("pay")} == written
    source = "".join(path.read_text() for path in (ROOT / "engine").rglob("*.py"))
    told = set(re.findall(r'"(agent\.(?:session|key)\.\w+)"', source))
    assert told == {name for name in EVENTS if name.startswith("agent")}


def test_the_schedule_and_the_numbers_are_those_of_the_code() -> None:
    [row] = re.findall(r"^\| after \| (.*) \|$", PAGE, re.MULTILINE)
    delays = [cell.split() for cell in row.split(" | ")]
    assert [int(number) * UNITS[unit] for number, unit in delays] == list(DELAYS_MS[1:])
    assert len(DELAYS_MS) == ATTEMPTS_MAX == 10
    for said in (
        f"within {DEADLINE_S:g} seconds",
        f"At most {WAITING_MAX} events",
        f"last {ATTEMPTS_KEPT:,} attempts",
        f"else eight; {FLYING_OF_WORKSPACE_MAX} to those of a workspace, {FLYING_MAX} to all",
        f"{TESTS_OF_WORKSPACE_MAX} tests of a workspace at a time, {TESTS_MAX} of all",
        f"listens {LISTENERS_OF_KEY_MAX} times at once",
        f"of a workspace {LISTENERS_OF_WORKSPACE_MAX} times, everybody {LISTENERS_MAX} times",
    ):
        assert said in " ".join(PAGE.split())
    assert (8, 10, 5 * UNITS["m"]) == (WIDTH, RECOVERED_FAILURES, PROBE_MS)
