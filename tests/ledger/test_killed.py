"""The server dies at any moment, and nothing that it ever said becomes untrue (see `hammer`)."""

import secrets
from pathlib import Path

import pytest

from engine.fsck.check import check
from tests.durability.hammer import Size
from tests.ledger.hammer import SqliteHammer

STORES = ("sqlite",)

PROCESSES, DECISIONS, KILLS = 3, 600, 2


def test_what_was_acknowledged_survives_every_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = Size(secrets.randbelow(10**9), PROCESSES, DECISIONS, KILLS)
    try:
        hammer = SqliteHammer(tmp_path, size)
        figures = hammer.run()
        before = hammer.store.read_bytes()
        report = check(hammer.store, patience_s=0)
        assert (report.findings, hammer.store.read_bytes()) == ((), before)
        assert report.records >= DECISIONS
    except BaseException:
        options = f"--seed {size.seed} --processes {PROCESSES} --decisions {DECISIONS}"
        with capsys.disabled():
            print(f"\nscripts/hammer-kill {options} --kills {KILLS}")  # noqa: T201
        raise
    assert figures["kills"] == KILLS
    assert figures["answers"] >= DECISIONS
    assert figures["error lines of the server"] == 0
    assert min(figures[name] for name in ("allowed", "denied", "captured", "voided")) > 0
