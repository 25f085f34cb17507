"""Whether two heads that a log's key signed are of one log that only grew, or of two histories.

Somebody who holds the log's key can show different logs to different people: a split view. The
chain holds one root for each size that was anchored; between anchors, and to whoever does not look
at the chain, only a comparison of what was shown tells. Two roots of one size, or a proof that a
larger tree begins otherwise than with the smaller one, are evidence against whoever holds the key:
nobody else could have made both. That a proof is missing or wrong is none.

Pure: files and proofs come in as bytes. What the caller must still do: get the verifier key from
somewhere other than the files, and keep both of them where a split view is found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from engine.audit.checkpoint import Checkpoint, open_note
from engine.audit.evidence import Evidence
from engine.audit.proofs import OtherBeginningError, ProofError, verify_consistency

__all__ = ["Comparison", "NoProofError", "Outcome", "Shown", "compare", "shown_by"]

Prove = Callable[[int, int], Sequence[bytes]]
"""A consistency proof (RFC 6962 section 2.1.2) between two sizes; raises `NoProofError`."""


class NoProofError(Exception):
    """Who was asked for a consistency proof has none; the text says why."""


class Outcome(Enum):
    """What a comparison found; the value is the exit status of `tallystick compare`."""

    CONSISTENT = 0
    SPLIT_VIEW = 1
    NOT_SHOWN = 3
    """A proof was given that shows nothing."""
    UNKNOWN = 4
    """There is no proof."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody was shown of a log: a signed head, and roots (by size) of which it is proven
    that the head's tree begins with them. The head's own root is among these."""

    head: Checkpoint
    roots: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found, and why in one sentence."""

    outcome: Outcome
    reason: str


def shown_by(source: Evidence | str, verifier_key: str) -> Shown:
    """What an evidence file or a checkpoint (C2SP tlog-checkpoint) shows of the key's log.

    Raises:
        NoteError: there is no checkpoint, or it is not the key's.
        ProofError: the anchors of the file are not those of one growing log.
    """
    if isinstance(source, str):
        head = open_note(source, verifier_key)
        return Shown(head, {head.size: head.root})
    head = open_note(source.checkpoint or "", verifier_key)
    steps = [(found.size, found.root) for found in source.anchored]
    if steps[-1:] != [(head.size, head.root)] or len(source.consistency) != len(steps) - 1:
        raise ProofError("the anchors do not lead to the checkpoint")
    for (older, newer), proof in zip(pairwise(steps), source.consistency, strict=True):
        verify_consistency(*older, *newer, proof)
    return Shown(head, dict(steps))


def compare(one: Shown, other: Shown, prove: Prove | None = None) -> Comparison:
    """Compare what two people were shown under one key; the order does not matter.

    `prove` is asked once, if what they were shown does not tell by itself.
    """
    # 1. They are of one log.
    if one.head.origin != other.head.origin:
        return Comparison(
            Outcome.UNKNOWN,
            f"they are of two logs, {one.head.origin} and {other.head.origin}",
        )

    # 2. No size has two roots.
    common = sorted(one.roots.keys() & other.roots.keys())
    for size in common:
        if one.roots[size] != other.roots[size]:
            return _split(size)

    # 3. The smaller one is the beginning of the larger one: as far as they tell themselves,
    older, newer = sorted((one.head, other.head), key=lambda head: head.size)
    if older.size in common:
        return _consistent(older, newer, "")

    # 4. or else by the proof of somebody who has the log.
    if prove is None:
        return Comparison(
            Outcome.UNKNOWN,
            f"whether the tree of {newer.size} records begins with the one of {older.size} takes a "
            "consistency proof: name a server that has the log (--server)",
        )
    try:
        proof = prove(older.size, newer.size)
        verify_consistency(older.size, older.root, newer.size, newer.root, proof)
    except NoProofError as error:
        return Comparison(Outcome.UNKNOWN, f"the server has no proof: {error}")
    except OtherBeginningError:
        return _split(older.size)
    except ProofError as error:
        return Comparison(
            Outcome.NOT_SHOWN,
            f"the server does not show that the tree of {newer.size} records begins with the one "
            f"of {older.size}: {error}; its log is not that of both",
        )
    return _consistent(older, newer, ", by the server's proof")


def _consistent(older: Checkpoint, newer: Checkpoint, how: str) -> Comparison:
    if older.size == newer.size:
        return Comparison(Outcome.CONSISTENT, f"the same {newer.size} records")
    return Comparison(
        Outcome.CONSISTENT,
        f"the tree of {newer.size} records begins with the one of {older.size}{how}",
    )


def _split(size: int) -> Comparison:
    return Comparison(
        Outcome.SPLIT_VIEW,
        f"the log's key stands for two histories: the first {size} records have two roots. Keep "
        "both files",
    )
