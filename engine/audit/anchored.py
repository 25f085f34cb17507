"""Whether the anchors that a file rests on are those of the chain, and of one growing log.

The chain decides which anchors there are. What the file tells of them (block, transaction) is held
against it, so that nothing in the file is idle; a reorganisation can have moved an anchor since the
file was made, so a place that differs is no tampering.
"""

from collections.abc import Sequence
from itertools import pairwise

from engine.audit.chain import Anchoring
from engine.audit.proofs import ProofError, verify_consistency
from engine.audit.report import Finding, Verdict, counted, tampered


def check_anchors(
    told: Sequence[Anchoring],
    proofs: Sequence[Sequence[bytes]],
    anchors: Sequence[Anchoring],
    since_block: int,
) -> int:
    """Compare a file's anchors with the chain's; returns how many are older than the newest.

    `anchors` are the chain's up to the file's checkpoint, by size; those from `since_block`, the
    block of the registration, on must be in the file. Proofs that reach further back are welcome: a
    reorganisation can have moved the registration on since the file was made.

    Raises:
        Finding: they do not fit.
    """
    bound = sum(anchoring.block_number >= since_block for anchoring in anchors)
    if not bound - 1 <= len(proofs) < len(anchors):
        raise tampered(
            f"{counted(len(proofs), 'consistency proof')}, but {counted(bound, 'anchor')} since "
            "the session's registration"
        )
    if len(told) != len(proofs) + 1:
        raise tampered(
            f"{counted(len(told), 'anchor')} named, but {counted(len(proofs), 'consistency proof')}"
        )
    found = anchors[-len(told) :]
    for (older, newer), proof in zip(pairwise(found), proofs, strict=True):
        try:
            verify_consistency(older.size, older.root, newer.size, newer.root, proof)
        except ProofError as error:
            raise tampered(
                f"the anchor of size {older.size} is not shown to be the beginning of the one "
                f"of size {newer.size}: {error}"
            ) from error
    for ours, theirs in zip(told, found, strict=True):
        if (ours.size, ours.root) != (theirs.size, theirs.root):
            raise tampered(f"the file names another anchor than the chain's of size {theirs.size}")
    return len(proofs)


def check_places(told: Sequence[Anchoring], anchors: Sequence[Anchoring]) -> None:
    """The file and the chain place the same anchors in the same blocks and transactions.

    Raises:
        Finding: they do not.
    """
    for ours, theirs in zip(told, anchors[-len(told) :], strict=True):
        if ours.block_number != theirs.block_number or theirs.tx_hash not in (None, ours.tx_hash):
            raise moved(f"the anchor of size {theirs.size}", ours.block_number, theirs.block_number)


def moved(what: str, told: int, found: int) -> Finding:
    """The finding that something is on the chain, but not where the file says."""
    return Finding(
        Verdict.PENDING,
        f"{what} is in block {found}, the file places it otherwise (block {told}): the chain was "
        "reorganised since, or the file is wrong; ask for a new one",
    )
