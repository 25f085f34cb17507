"""A short run of `scripts/webhooks-kill`."""

from pathlib import Path

from tests.webhooks.kill_senders import kill

KILLS = 3


def test_every_event_arrives_over_kills_and_failures(tmp_path: Path) -> None:
    figures = kill(tmp_path / "data", seed=7, kills=KILLS)
    assert figures["kills"] == KILLS
    assert figures["events"] > figures["payments acknowledged"] > 0
    assert figures["attempts"] > figures["events"]
