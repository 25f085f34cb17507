"""Whether the anchors of a log, as the chain holds them, are of one log that only grew."""

from collections.abc import Sequence
from itertools import pairwise

from engine.audit.chain import Anchoring
from engine.audit.proofs import ProofError, verify_consistency
from engine.audit.report import tampered


def check_consistency(
    anchors: Sequence[Anchoring], since: int, proofs: Sequence[tuple[bytes, ...]]
) -> int:
    """Compare the anchors from block `since` on; return how many are older than the last.

    `anchors` are all up to the file's own, by size. Proofs that reach further back are welcome: a
    reorganisation can have moved the registration on since the file was made. Raises `Finding`.
    """
    bound = sum(anchoring.block_number >= since for anchoring in anchors)
    if not bound - 1 <= len(proofs) < len(anchors):
        raise tampered(
            f"{len(proofs)} consistency proofs, but {bound} anchors since the session's "
            "registration"
        )
    pairs = pairwise(anchors[-1 - len(proofs) :])
    for (older, newer), proof in zip(pairs, proofs, strict=True):
        try:
            verify_consistency(older.size, older.root, newer.size, newer.root, proof)
        except ProofError as error:
            raise tampered(
                f"the anchor of size {older.size} is not shown to be the beginning of the one "
                f"of size {newer.size}: {error}"
            ) from error
    return len(proofs)
