"""docs/reconciliation.md tells the truth about this commit."""

import re
from pathlib import Path

from engine.reconcile.kinds import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "reconciliation.md").read_text()


def test_every_kind_is_described_as_it_describes_itself() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (critical|warning|info) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(kind.name, kind.severity, kind.means) for kind in KINDS.values()]


def test_for_every_kind_it_is_said_what_to_do() -> None:
    said = re.findall(r"\*\*`(\w+)`\*\*", PAGE.partition("## What to do")[2])
    assert sorted(said) == sorted(KINDS)
