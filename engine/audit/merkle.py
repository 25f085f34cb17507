"""The append-only Merkle tree of RFC 6962 §2.1 over SHA-256.

A leaf is hashed with the prefix 0x00 and an inner node with 0x01, so that neither can be passed
off as the other. Only the hashes of complete subtrees are kept; they never change once the tree
has grown past them. That is why the root and the proofs of every earlier size stay available.
All hashes are 32 bytes. Indexes count from 0.
"""

from collections.abc import Iterable
from hashlib import sha256

__all__ = ["EMPTY_ROOT", "HASH_BYTES", "SIZE_MAX", "Tree", "is_hash", "leaf_hash", "node_hash"]

HASH_BYTES = 32
SIZE_MAX = 2**63 - 1
"""The most leaves of a tree that a proof or a checkpoint may speak of."""
EMPTY_ROOT = sha256(b"").digest()
_LEAF, _NODE = sha256(b"\x00"), sha256(b"\x01")
"""Begun hashes: to copy one takes less time than to begin another."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data): the hash of the entry `data` (RFC 6962 §2.1)."""
    digest = _LEAF.copy()
    digest.update(data)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): the hash of an inner node (RFC 6962 §2.1)."""
    digest = _NODE.copy()
    digest.update(left + right)
    return digest.digest()


def is_hash(value: object) -> bool:
    """Whether `value` has the shape of a hash: 32 bytes."""
    return isinstance(value, bytes) and len(value) == HASH_BYTES


class Tree:
    """Leaf hashes in order, and every root and proof over a prefix of them.

    Appending costs one node hash on average; `root` and the proofs cost O(log n). Memory is
    64 bytes a leaf. Not safe for use by several threads at once.
    """

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        """Start with `leaf_hashes`, as `extend` would add them."""
        # _levels[k] holds, back to back, the hashes of the complete subtrees of 2^k leaves.
        self._levels = [bytearray()]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf_hash: bytes) -> int:
        """Add one leaf and return its index.

        Raises:
            ValueError: `leaf_hash` is not 32 bytes.
        """
        self._levels[0] += _checked(leaf_hash)
        self._complete()
        return self.size - 1

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add all of `leaf_hashes`, or none of them when one is refused.

        Raises:
            ValueError: one is not 32 bytes.
        """
        self.extend_packed(b"".join([_checked(leaf) for leaf in leaf_hashes]))

    def extend_packed(self, leaf_hashes: bytes) -> None:
        """Add leaf hashes that stand back to back.

        Raises:
            ValueError: they are not of 32 bytes each.
        """
        if len(leaf_hashes) % HASH_BYTES:
            raise ValueError(f"leaf hashes are not {HASH_BYTES} bytes each")
        self._levels[0] += leaf_hashes
        self._complete()

    def leaf(self, index: int) -> bytes:
        """The leaf hash at `index`.

        Raises:
            IndexError: there is no such leaf.
        """
        self._check_index(index, self.size)
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves (RFC 6962 §2.1); of all by default.

        Raises:
            ValueError: `size` is negative or larger than the tree.
        """
        size = self.size if size is None else size
        self._check_size(size)
        return self._range_root(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[0:size]) of RFC 6962 §2.1.1, from the leaf's sibling upwards.

        Raises:
            ValueError: `size` is negative or larger than the tree.
            IndexError: `index` is not within the first `size` leaves.
        """
        size = self.size if size is None else size
        self._check_size(size)
        self._check_index(index, size)
        return self._path(0, index, size)

    def consistency_proof(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """PROOF(old_size, D[0:new_size]) of RFC 6962 §2.1.2; empty for equal sizes and for 0.

        Raises:
            ValueError: not 0 <= old_size <= new_size <= size.
        """
        new_size = self.size if new_size is None else new_size
        self._check_size(new_size)
        if not 0 <= old_size <= new_size:
            raise ValueError(f"old size {old_size} is not within 0..{new_size}")
        if old_size in (0, new_size):
            return []
        # The path starts at the last complete subtree of the old tree. When that is the whole
        # old tree, the verifier holds its hash already: it is the old root.
        level = (old_size & -old_size).bit_length() - 1
        index = (old_size >> level) - 1
        start = [self._node(level, index)] if index else []
        return start + self._path(level, index, new_size)

    def _complete(self) -> None:
        """Hash every pair of nodes that has no parent yet, level by level."""
        level = 0
        while True:
            lower = self._levels[level]
            if level + 1 == len(self._levels):
                if len(lower) < 2 * HASH_BYTES:
                    return
                self._levels.append(bytearray())
            upper = self._levels[level + 1]
            start, end = 2 * len(upper), len(lower) & -2 * HASH_BYTES
            if start == end:
                return
            pairs = bytes(lower[start:end])
            places = range(0, len(pairs), 2 * HASH_BYTES)
            upper += b"".join(
                [sha256(b"\x01" + pairs[at : at + 2 * HASH_BYTES]).digest() for at in places]
            )
            level += 1

    def _node(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _range_root(self, start: int, end: int) -> bytes:
        """The root of leaves [start, end), where `start` is a multiple of a 2^k >= end - start."""
        width = end - start
        level = (width & -width).bit_length() - 1
        root = self._node(level, (end >> level) - 1)
        while width := width & (width - 1):
            level = (width & -width).bit_length() - 1
            root = node_hash(self._node(level, ((start + width) >> level) - 1), root)
        return root

    def _path(self, level: int, index: int, size: int) -> list[bytes]:
        """The siblings from a complete node up to the root of the first `size` leaves."""
        path = []
        while last := (size - 1) >> level:
            sibling = index ^ 1
            if sibling < last:
                path.append(self._node(level, sibling))
            elif sibling == last:
                path.append(self._range_root(sibling << level, size))
            level, index = level + 1, index >> 1
        return path

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ValueError(f"size {size} is not within 0..{self.size}")

    def _check_index(self, index: int, size: int) -> None:
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} is not within the first {size} leaves")


def _checked(leaf_hash: bytes) -> bytes:
    if not is_hash(leaf_hash):
        raise ValueError(f"a leaf hash is not {HASH_BYTES} bytes")
    return leaf_hash
