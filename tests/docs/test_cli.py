"""The command line and the client are documented as they are."""

import re
from pathlib import Path

from engine.audit.compare import Outcome
from engine.audit.report import Verdict
from tallystick import cli
from tallystick.cli import explanations, fetch, fsck, output, reconcile, signals
from tests.cli.test_any_invocation import RUNNING, STATUSES
from tests.docs.make_references import DOCS, commands_text, reference_text


def test_the_references_are_made_from_this_code() -> None:
    """`python -m tests.docs.make_references` makes them."""
    assert (DOCS / "commands.md").read_text() == commands_text()
    assert (DOCS / "python-reference.md").read_text() == reference_text()


def test_the_exit_statuses_are_documented() -> None:
    text = (DOCS / "cli.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (any|`[\w `,]+`) \| \S", text, re.MULTILINE)
    found = [(int(s), of) for s, whose in rows for of in whose.replace("`", "").split(", ")]
    anybody = (0, 1, output.USAGE_EXIT_CODE, output.DENIED_EXIT_CODE, cli.DEFECT_EXIT_CODE)
    severe = (reconcile.CRITICAL_EXIT_CODE, reconcile.WARNING_EXIT_CODE)
    ended = (signals.INTERRUPTED_EXIT_CODE, signals.TERMINATED_EXIT_CODE)
    expected = {(status, "any") for status in (*anybody, *ended, cli.READER_GONE_EXIT_CODE)}
    expected |= {(verdict.value, "verify") for verdict in Verdict}
    expected |= {(s, "reconcile") for s in (0, *severe, reconcile.UNAVAILABLE_EXIT_CODE)}
    expected |= {(s, "fsck") for s in (0, fsck.FOUND_EXIT_CODE, fsck.UNREADABLE_EXIT_CODE)}
    expected |= {(outcome.value, "compare") for outcome in Outcome}
    expected |= {(0, " ".join(words)) for words in RUNNING - {("mcp",)}}
    expected |= {(explanations.DIFFERS_EXIT_CODE, "explain")}
    expected |= {(fetch.OUTCOME_UNKNOWN_EXIT_CODE, "fetch")}
    assert set(found) == expected
    assert len(found) == len(expected)
    assert {status for status, _ in found} >= STATUSES


def test_links_of_the_new_pages_lead_somewhere() -> None:
    for page in (*DOCS.glob("recipes/*.md"), DOCS / "cli.md", DOCS / "python.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (Path(page).parent / link).exists(), (page, link)
