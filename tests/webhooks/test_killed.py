"""A short run of `scripts/webhooks-kill`."""

from pathlib import Path

from tests.webhooks.kill_senders import kill

KILLS = 3


def test_every_event_arrives_over_kills_and_failures(tmp_path: Path) -> None:
    """Every payment, and each transition of each session exactly once."""
    figures = kill(tmp_path / "data", seed=7, kills=KILLS)
    assert figures["kills"] == KILLS
    for what in ("created", "revoked", "expired", "limit_reached"):
        assert figures[f"sessions {what}"] > 0, what
    assert figures["events"] > figures["payments acknowledged"] > 0
    assert figures["attempts"] > figures["events"]
