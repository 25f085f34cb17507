"""Every row of a report is true: what was not checked says so, with or without assertions."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from engine.audit.verify import Report, Verdict, summary
from tests.audit.test_verify import ATTACKS, Edit
from tests.evidence.story import Story, replaced, story


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


@pytest.mark.parametrize("edit", [a[1] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_what_was_not_checked_says_so_and_changes_no_verdict(told: Story, edit: Edit) -> None:
    document = told.document
    edit(document)
    report = told.verify(told.seal(document))
    made = tuple(check for check in report.checks if check.made)
    assert Report(made).verdict is report.verdict
    for check in report.checks:
        assert check.reason.startswith("not checked: it rests on the ") != check.made
        assert check.made or check.verdict is not Verdict.VERIFIED
    shown = {check["verdict"] for check in summary(report)["checks"]}
    assert shown == {check.verdict.name.lower() for check in made} | (
        {"not_checked"} if len(made) < len(report.checks) else set()
    )


def test_what_rests_on_the_chain_is_not_checked_against_another(told: Story) -> None:
    report = told.verify(told.full, replaced(told.chain, chain_id=1))
    rows = {check.name: check.state for check in report.checks}
    assert [name for name, state in rows.items() if state == "tampered"] == ["chain"]
    assert [name for name, state in rows.items() if state == "verified"] == [
        "format",
        "seal",
        "sequence",
        "replay",
    ]
    assert set(rows.values()) == {"verified", "tampered", "not_checked"}


def test_no_check_rests_on_an_assertion(told: Story, tmp_path: Path) -> None:
    """An auditor may run Python with -O, which removes every `assert`."""
    documents = [told.document for _ in ATTACKS]
    for document, (_, change, _) in zip(documents, ATTACKS, strict=True):
        change(document)
    files = [told.seal(document) for document in documents]
    asked = (told.chain, told.registry, [told.full, *files])
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    program = (
        "import json, pickle, sys; from engine.audit.verify import verify\n"
        "chain, registry, files = pickle.load(open(sys.argv[1], 'rb'))\n"
        "reports = [verify(file, chain, registry=registry) for file in files]\n"
        "print(json.dumps([__debug__, *(report.reason for report in reports)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", program, tmp_path / "asked"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    debug, verified, *refused = json.loads(done.stdout)
    assert (debug, verified) == (False, told.verify(told.full).reason)
    assert [reason.partition(":")[0] for reason in refused] == [a[2] for a in ATTACKS]
