import hashlib

import pymerkle  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audit.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash
from tests.audit import rfc6962

SIZE_MAX = 256
LEAVES = [leaf_hash(b"entry %d" % index) for index in range(SIZE_MAX)]
MTH = rfc6962.subtrees(LEAVES)

# The eight entries that implementations of RFC 6962 are customarily compared on, and their roots.
KNOWN_ENTRIES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_hashes_carry_their_prefixes() -> None:
    assert hashlib.sha256(b"\x00data").digest() == leaf_hash(b"data")
    assert (
        node_hash(LEAVES[0], LEAVES[1]) == hashlib.sha256(b"\x01" + LEAVES[0] + LEAVES[1]).digest()
    )
    # An inner node read as an entry hashes to something else.
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])


def test_known_roots() -> None:
    tree = Tree(leaf_hash(bytes.fromhex(entry)) for entry in KNOWN_ENTRIES)
    assert [tree.root(size).hex() for size in range(9)] == KNOWN_ROOTS


def test_every_root_while_growing() -> None:
    tree, growing = Tree(), rfc6962.Growing()
    assert tree.root() == EMPTY_ROOT == growing.root()
    for index, leaf in enumerate(LEAVES):
        assert tree.append(leaf) == index
        assert tree.size == index + 1
        growing.append(leaf)
        assert tree.root() == rfc6962.root(MTH, index + 1) == growing.root()


def test_past_roots_and_leaves_of_a_grown_tree() -> None:
    tree = Tree(LEAVES)
    assert [tree.leaf(index) for index in range(SIZE_MAX)] == LEAVES
    for size in range(SIZE_MAX + 1):
        assert tree.root(size) == rfc6962.root(MTH, size)


def test_every_inclusion_proof() -> None:
    tree = Tree(LEAVES)
    for size in range(1, SIZE_MAX + 1):
        for index in range(size):
            assert tree.inclusion_proof(index, size) == rfc6962.path(MTH, index, 0, size)


def test_every_consistency_proof() -> None:
    tree = Tree(LEAVES)
    for new_size in range(SIZE_MAX + 1):
        for old_size in range(new_size + 1):
            expected = rfc6962.proof(MTH, old_size, new_size)
            assert tree.consistency_proof(old_size, new_size) == expected


def test_an_independent_library_agrees_on_roots_and_inclusion() -> None:
    # Its consistency proofs are not compared: they are not in the form of the RFC.
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    ours = Tree()
    for size in range(1, 49):
        entry = b"entry %d" % size
        theirs.append_entry(entry)
        ours.append(leaf_hash(entry))
        assert ours.root() == theirs.get_root()
        for index in range(size):
            # It counts leaves from 1, and its paths start with the leaf itself.
            assert ours.inclusion_proof(index) == theirs.prove_inclusion(index + 1).path[1:]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 40)),
            st.tuples(st.just("extend"), st.integers(0, 40)),
        ),
        max_size=12,
    )
)
def test_a_tree_is_the_same_however_it_grew(steps: list[tuple[str, int]]) -> None:
    tree = Tree()
    leaves: list[bytes] = []
    for serial, (step, number) in enumerate(steps):
        batch = [leaf_hash(b"%d/%d" % (serial, position)) for position in range(number)]
        if step == "append":
            for leaf in batch:
                tree.append(leaf)
            leaves += batch
        else:
            tree.extend(batch)
            leaves += batch
        fresh = Tree(leaves)
        assert tree.size == len(leaves)
        assert tree.root() == fresh.root() == rfc6962.root(rfc6962.subtrees(leaves), len(leaves))
        for index in range(len(leaves)):
            assert tree.inclusion_proof(index) == fresh.inclusion_proof(index)
        for old_size in range(len(leaves)):
            assert tree.consistency_proof(old_size) == fresh.consistency_proof(old_size)


def test_hashes_handed_out_do_not_change_as_the_tree_does() -> None:
    tree = Tree(LEAVES[:5])
    leaf, root, proof = tree.leaf(0), tree.root(), tree.inclusion_proof(0)
    tree.extend(LEAVES[100:200])
    assert (leaf, root) == (LEAVES[0], MTH(0, 5))
    assert proof == rfc6962.path(MTH, 0, 0, 5)


def test_a_refused_batch_leaves_nothing_behind() -> None:
    tree = Tree(LEAVES[:3])
    with pytest.raises(ValueError, match="32 bytes"):
        tree.extend([LEAVES[3], LEAVES[4][:31]])
    assert tree.size == 3
    assert tree.root() == MTH(0, 3)


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33), "0" * 32, bytearray(32), None])
def test_a_leaf_hash_is_32_bytes(wrong: bytes) -> None:
    tree = Tree()
    with pytest.raises(ValueError, match="32 bytes"):
        tree.append(wrong)
    assert tree.size == 0


@pytest.mark.parametrize("length", [1, 31, 33, 63])
def test_leaf_hashes_back_to_back_are_32_bytes_each(length: int) -> None:
    tree, whole = Tree(LEAVES[:3]), Tree(LEAVES[:8])
    with pytest.raises(ValueError, match="32 bytes each"):
        tree.extend_packed(bytes(length))
    assert tree.root() == MTH(0, 3)
    tree.extend_packed(b"".join(LEAVES[3:8]))
    assert (tree.size, tree.root()) == (8, whole.root())


def test_argument_errors() -> None:
    tree = Tree(LEAVES[:5])
    for size in (-1, 6):
        for call in (tree.root, lambda size: tree.inclusion_proof(0, size)):
            with pytest.raises(ValueError, match=r"not within 0\.\.5"):
                call(size)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="first 5 leaves"):
            tree.leaf(index)
        with pytest.raises(IndexError, match="first 5 leaves"):
            tree.inclusion_proof(index)
    with pytest.raises(IndexError, match="first 3 leaves"):
        tree.inclusion_proof(3, 3)
    with pytest.raises(IndexError, match="first 0 leaves"):
        tree.inclusion_proof(0, 0)
    for old_size, new_size in ((-1, 3), (4, 3), (0, 6), (6, 6)):
        with pytest.raises(ValueError, match="not within"):
            tree.consistency_proof(old_size, new_size)
    assert tree.size == 5
