"""RFC 6962 §2.1 written down as its recursive definitions: the reference the tests compare with.

It shares no code with the package, and makes no attempt to be fast beyond remembering subtrees.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

Subtree = Callable[[int, int], bytes]
"""(start, end) -> the Merkle tree hash of the leaves [start, end), end > start."""


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(bytes([1]) + left + right).digest()


def split(width: int) -> int:
    """The largest power of two smaller than `width`."""
    k = 1
    while 2 * k < width:
        k *= 2
    return k


def subtrees(leaf_hashes: Sequence[bytes]) -> Subtree:
    """MTH of any range of `leaf_hashes`."""

    @cache
    def mth(start: int, end: int) -> bytes:
        if end - start == 1:
            return leaf_hashes[start]
        k = split(end - start)
        return _inner(mth(start, start + k), mth(start + k, end))

    return mth


def equal_subtrees(leaf_hash: bytes) -> Subtree:
    """MTH of any range of an endless row of one leaf hash: trees too large to be built."""

    @cache
    def of_width(width: int) -> bytes:
        if width == 1:
            return leaf_hash
        k = split(width)
        return _inner(of_width(k), of_width(width - k))

    return lambda start, end: of_width(end - start)


def root(mth: Subtree, size: int) -> bytes:
    return mth(0, size) if size else hashlib.sha256().digest()


class Growing:
    """The tree over all leaves so far, by the roots of the full subtrees that it splits into.

    Splitting at the largest power of two puts full subtrees of ever smaller widths side by side, so
    that many sizes of a large tree take one pass over its leaves.
    """

    def __init__(self) -> None:
        self.size = 0
        self._full: list[tuple[int, bytes]] = []
        """(width, root) from the left."""

    def append(self, leaf_hash: bytes) -> None:
        self.size += 1
        width, right = 1, leaf_hash
        while self._full and self._full[-1][0] == width:
            right = _inner(self._full.pop()[1], right)
            width *= 2
        self._full.append((width, right))

    def root(self) -> bytes:
        if not self._full:
            return hashlib.sha256().digest()
        roots = [found for _, found in self._full]
        found = roots.pop()
        while roots:
            found = _inner(roots.pop(), found)
        return found


def path(mth: Subtree, index: int, start: int, end: int) -> list[bytes]:
    """PATH of §2.1.1 for the leaf `index`, counted from `start`, of the leaves [start, end)."""
    if end - start == 1:
        return []
    k = split(end - start)
    if index < k:
        return [*path(mth, index, start, start + k), mth(start + k, end)]
    return [*path(mth, index - k, start + k, end), mth(start, start + k)]


def proof(mth: Subtree, old_size: int, new_size: int) -> list[bytes]:
    """PROOF of §2.1.2, extended by the empty proof from the empty tree."""
    return _subproof(mth, old_size, 0, new_size, True) if old_size else []


def _subproof(mth: Subtree, m: int, start: int, end: int, whole: bool) -> list[bytes]:
    if m == end - start:
        return [] if whole else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*_subproof(mth, m, start, start + k, whole), mth(start + k, end)]
    return [*_subproof(mth, m - k, start + k, end, False), mth(start, start + k)]


def sides(index: int, size: int) -> list[str]:
    """On which side each sibling of the climb from leaf `index` lies, from the leaf upwards."""
    if size == 1:
        return []
    k = split(size)
    if index < k:
        return [*sides(index, k), "right"]
    return [*sides(index - k, size - k), "left"]
