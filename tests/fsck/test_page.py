"""The page says what the code says."""

import re
from pathlib import Path

from engine.fsck.unchecked import NOTHING_CHECKS, NOTHING_MISSES, ONLY_THE_CHAIN_CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "fsck.md").read_text()


def test_the_page_lists_what_nothing_checks_and_why() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        *NOTHING_CHECKS.items(),
        *NOTHING_MISSES.items(),
        *ONLY_THE_CHAIN_CHECKS.items(),
    ]
