"""Checking Merkle proofs: the algorithms of RFC 9162 §2.1.3.2 and §2.1.4.2, step by step.

A root does not say of how many leaves it is: pass a size and a root that one checkpoint bound
together, and never a size that came with the proof. The names fn, sn, fr and sr are the RFC's:
the positions of the first and the second node on their level, and the roots being rebuilt.
"""

from collections.abc import Sequence

from engine.audit.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX, is_hash, node_hash

__all__ = [
    "PROOF_HASHES_MAX",
    "Inclusions",
    "OtherBeginningError",
    "ProofError",
    "verify_consistency",
    "verify_inclusion",
]

PROOF_HASHES_MAX = SIZE_MAX.bit_length() + 1
"""One sibling for each level of the largest tree, and the node a consistency proof starts at."""


class ProofError(ValueError):
    """A Merkle proof does not show what it was given to show; the text says why."""


class OtherBeginningError(ProofError):
    """A consistency proof shows that the new tree begins otherwise than with the old one.

    It leads to the new root, so every node of it is that tree's, and with them those that make the
    root at the old size. Of an old size that is a power of 2 no proof shows that: the old root is
    what its proofs begin with.
    """


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf at `index` of the tree (`size`, `root`) is `leaf_hash`.

    `proof` is a list or tuple of 32-byte hashes, the leaf's sibling first. Returning means yes.
    The caller must have `size` and `root` from a checkpoint or an anchor that it trusts.

    Raises:
        ProofError: the proof, or the shape of any argument, is wrong.
    """
    # 1. The arguments are what they claim to be, and the index lies in the tree.
    _check_hash("leaf hash", leaf_hash)
    _check_hash("root", root)
    _check_size("index", index)
    _check_size("size", size)
    _check_proof(proof)
    if index >= size:
        raise ProofError(f"index {index} is not within a tree of {size} leaves")

    # 2-4. Climb from the leaf; `sn` reaches 0 exactly at the root.
    fn, sn = index, size - 1
    rebuilt = leaf_hash
    for sibling in proof:
        if sn == 0:
            raise ProofError("the proof is too long")
        if fn & 1 or fn == sn:
            rebuilt = node_hash(sibling, rebuilt)
            fn, sn = _skip_missing_siblings(fn, sn)
        else:
            rebuilt = node_hash(rebuilt, sibling)
        fn, sn = fn >> 1, sn >> 1

    # 5. The whole tree was climbed, to the expected root.
    if sn != 0:
        raise ProofError("the proof is too short")
    if rebuilt != root:
        raise ProofError("the proof leads to another root")


class Inclusions:
    """Checks the inclusion proofs of many leaves of one tree (`size`, `root`), in any order.

    For hashes that are `bytes`, what `verify` accepts and what it raises are those of
    `verify_inclusion`. Two paths meet at the lowest node that is above both leaves, and each has
    the other's node below it in its proof. From there the rest of a proof must be, byte for byte,
    the rest of the one before it, which was verified up to the root: so a neighbour costs one hash.
    """

    def __init__(self, size: int, root: bytes) -> None:
        """Of this tree.

        Raises:
            ProofError: `size` or `root` is none.
        """
        _check_size("size", size)
        _check_hash("root", root)
        self._size = size
        self._root = root
        self._proof: tuple[bytes, ...] = ()
        self._path: dict[int, tuple[int, bytes, int]] = {}
        """The last path: by `sn`, which names a level, the `fn` there, the node's hash, and how
        many hashes of the proof were left."""

    def verify(self, leaf_hash: bytes, index: int, proof: Sequence[bytes]) -> None:
        """Check that the leaf at `index` is `leaf_hash`; see `verify_inclusion`.

        Raises:
            ProofError: the proof, or the shape of any argument, is wrong.
        """
        regular = type(index) is int and 0 <= index < self._size and is_hash(leaf_hash)
        if not (regular and type(proof) is tuple and self._climb(leaf_hash, index, proof)):
            verify_inclusion(leaf_hash, index, self._size, proof, self._root)

    def _climb(self, leaf_hash: bytes, index: int, proof: tuple[bytes, ...]) -> bool:
        """Climb to the last path or to the root; if that works, this is the last path from now on.

        False says nothing of the proof.
        """
        path, last = self._path, self._proof
        fn, sn, rebuilt = index, self._size - 1, leaf_hash
        left = len(proof)
        begun: dict[int, tuple[int, bytes, int]] = {}
        for sibling in proof:
            if sn == 0 or type(sibling) is not bytes or len(sibling) != HASH_BYTES:
                return False
            known = path.get(sn)
            if known is not None and known[0] | 1 == fn | 1:
                at, node, above = known
                if at == fn:
                    same = rebuilt == node and proof[-left:] == last[-above:]
                else:  # they are siblings: what was above them is above them still
                    same = rebuilt == last[-above] and sibling == node
                    same = same and proof[len(proof) - left + 1 :] == last[len(last) - above + 1 :]
                    begun[sn] = fn, rebuilt, left
                if same:
                    path.update(begun)
                    if len(path) != len(proof):  # some of its levels are none of this path's
                        kept = {level: at for level, at in path.items() if at[2] <= above}
                        self._path = kept | begun
                    self._proof = proof
                return same
            begun[sn] = fn, rebuilt, left
            if fn & 1 or fn == sn:
                rebuilt = node_hash(sibling, rebuilt)
                fn, sn = _skip_missing_siblings(fn, sn)
            else:
                rebuilt = node_hash(rebuilt, sibling)
            fn, sn, left = fn >> 1, sn >> 1, left - 1
        if sn != 0 or rebuilt != self._root:
            return False
        self._path, self._proof = begun, proof
        return True


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree (`new_size`, `new_root`) only appended to (`old_size`, `old_root`).

    `proof` is a list or tuple of 32-byte hashes. Every tree extends the empty one, so from size 0
    only the empty proof and EMPTY_ROOT pass; equal sizes need the empty proof and equal roots.
    The caller must have both pairs from checkpoints or anchors.

    Raises:
        OtherBeginningError: the proof shows that the new tree has another beginning.
        ProofError: the proof, or the shape of any argument, is wrong.
    """
    # 1. The arguments are what they claim to be; the sizes with nothing to climb end here.
    _check_hash("old root", old_root)
    _check_hash("new root", new_root)
    _check_size("old size", old_size)
    _check_size("new size", new_size)
    _check_proof(proof)
    if old_size > new_size:
        raise ProofError(f"a log of {old_size} entries cannot shrink to {new_size}")
    _check_empty_root("old", old_size, old_root)
    _check_empty_root("new", new_size, new_root)
    if old_size in (0, new_size):
        if proof:
            raise ProofError("the proof must be empty")
        if old_size == new_size and old_root != new_root:
            raise ProofError("the same size has two roots")
        return

    # 2. When the old tree is one complete subtree, the climb starts at its root.
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the proof is too short")

    # 3-4. Start on the level of the last complete subtree of the old tree.
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1

    # 5-6. Climb, rebuilding both roots; left siblings belong to both trees.
    fr = sr = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("the proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(sibling, fr), node_hash(sibling, sr)
            fn, sn = _skip_missing_siblings(fn, sn)
        else:
            sr = node_hash(sr, sibling)
        fn, sn = fn >> 1, sn >> 1

    # 7. The whole tree was climbed, to both expected roots.
    if sn != 0:
        raise ProofError("the proof is too short")
    if sr != new_root:
        raise ProofError("the proof leads to another new root")
    if fr != old_root:
        raise OtherBeginningError("the proof leads to another old root")


def _skip_missing_siblings(fn: int, sn: int) -> tuple[int, int]:
    """Pass the levels where the last node has no sibling and stands for its own parent."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _check_hash(name: str, value: object) -> None:
    if not is_hash(value):
        raise ProofError(f"the {name} is not {HASH_BYTES} bytes")


def _check_size(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= SIZE_MAX:
        raise ProofError(f"the {name} is not an integer within 0..2^63 - 1")


def _check_empty_root(name: str, size: int, root: bytes) -> None:
    if size == 0 and root != EMPTY_ROOT:
        raise ProofError(f"the {name} root is not that of an empty tree")


def _check_proof(proof: object) -> None:
    if not isinstance(proof, list | tuple):
        raise ProofError("the proof is not a list of hashes")
    if len(proof) > PROOF_HASHES_MAX:
        raise ProofError("the proof is too long")
    if not all(map(is_hash, proof)):
        raise ProofError(f"a proof's step is not {HASH_BYTES} bytes")
