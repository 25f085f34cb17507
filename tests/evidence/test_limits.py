"""What an operator can leave out, until when it is not noticed, and that the file says so."""

import pytest

from engine.audit.chain import CLOCKS_DIFFER_MS, Anchoring
from engine.audit.evidence import NOT_PROVEN
from engine.audit.merkle import Tree
from engine.audit.verify import Verdict
from tests.evidence.story import (
    Snapshot,
    Story,
    failed,
    leaf_of,
    read,
    replaced,
    story,
    told_anchors,
)


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def cut(told: Story, count: int) -> bytes:
    document = told.document
    del document["records"][-count:]
    return told.seal(document)


def anchored_at(told: Story, time_ms: int) -> Snapshot:
    return replaced(told.chain, times_s={told.last_block: time_ms // 1000})


def revoked_ms(told: Story) -> int:
    token = bytes.fromhex(told.document["session"]["token_id"])
    revocation = told.chain.revocations[told.registry, token]
    assert revocation is not None
    return revocation.block_time_s * 1000


@pytest.mark.parametrize("count", range(1, 21))
def test_the_last_records_of_a_session_that_is_not_over_can_be_left_out(
    told: Story, count: int
) -> None:
    """The limit of the format, as every file says: it was anchored before the session ended."""
    before = anchored_at(told, revoked_ms(told) - 1000)
    assert told.verify(cut(told, count), before).verdict is Verdict.VERIFIED
    assert "The last records of a session that is not over yet can be left out." in NOT_PROVEN


@pytest.mark.parametrize("count", range(2, 21))
def test_left_out_records_are_noticed_once_the_session_is_over(told: Story, count: int) -> None:
    """Whether the revocation is among them or only its end: the session does not end."""
    at_once = anchored_at(told, revoked_ms(told))
    assert told.verify(told.full, at_once).verdict is Verdict.VERIFIED
    report = told.verify(cut(told, count), at_once)
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")
    assert report.reason.endswith("ask for a later file")


def test_a_session_that_runs_out_must_end_in_its_records(told: Story) -> None:
    document = read(told.small)
    until_ms = document["session"]["grant"]["valid_until_s"] * 1000
    report = told.verify(told.small, anchored_at(told, until_ms - 1000))
    assert report.verdict is Verdict.VERIFIED
    report = told.verify(told.small, anchored_at(told, until_ms))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")


def test_an_open_hold_must_end_in_the_records(told: Story) -> None:
    """What came of the money is left out, behind the end of the session."""
    document = told.document
    file, chain = told.relogged(lambda records: [*records[:3], records[9], *records[22:23]])
    assert failed(told.verify(file, chain)) == "replay"  # it has number 4, so that shows at once
    file, chain = told.relogged(lambda records: [*records[:4], records[22]])
    expires_ms = read(document["records"][3]["record"].encode() + b"\n")["body"]["hold_expires_ms"]
    over_s = (expires_ms + CLOCKS_DIFFER_MS) // 1000
    report = told.verify(file, replaced(chain, times_s={told.last_block: over_s}))
    assert report.verdict is Verdict.VERIFIED
    report = told.verify(file, replaced(chain, times_s={told.last_block: over_s + 1}))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")


def test_an_older_anchor_shows_only_what_was_then_and_says_so(told: Story) -> None:
    tree = Tree([leaf_of(raw) for raw in told.log])
    document = told.document
    size = document["records"][5]["index"] + 1
    first, *newer = told.anchorings
    older = Anchoring(size, tree.root(size), first.block_number)
    chain = told.anchored(first, older, *newer)
    document["checkpoint"] = told.checkpoint(size, tree.root(size))
    del document["records"][6:]
    for entry in document["records"]:
        entry["proof"] = [n.hex() for n in tree.inclusion_proof(entry["index"], size)]
    document["consistency"] = []
    document["anchors"] = told_anchors(older)
    report = told.verify(told.seal(document), chain)
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[6].reason.endswith("; 2 newer anchors not in this file")


def test_of_two_histories_in_one_log_either_is_verified(told: Story) -> None:
    """Both forks of a session can be under one root; every file says so."""
    file, chain = told.relogged(lambda records: [*records[:4], *records[5:]])
    assert told.verify(file, chain).verdict is Verdict.VERIFIED
    said = (
        "Of two histories that an operator wrote of one session into one log, "
        "either can be left out."
    )
    assert said in read(file)["not_proven"]
