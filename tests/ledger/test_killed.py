"""The server dies at any moment, and nothing that it ever said becomes untrue (see `hammer`)."""

import secrets
from pathlib import Path

import pytest

from tests.ledger.hammer import Hammer

STORES = ("sqlite",)

KILLS = 2


def test_what_was_acknowledged_survives_every_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(10**9)
    hammer = Hammer(tmp_path / "data", seed=seed, kills=KILLS, verify_every=KILLS)
    try:
        figures = hammer.run()
    except BaseException:
        with capsys.disabled():
            print(f"\nseed {seed}: scripts/hammer-kill --seed {seed} --kills {KILLS}")  # noqa: T201
        raise
    finally:
        hammer.server.kill()
    assert figures["acknowledged"] >= KILLS
    assert figures["allowed"] > 0
    assert figures["error lines of the server"] == 0
