"""Solidity and Python agree on trees: roots, proofs and what a proof proves."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audit.merkle import Tree, leaf_hash
from engine.audit.proofs import ProofError, verify_inclusion
from tests.contracts.deployed import ANCHORS, Contracts

hashes = st.binary(min_size=32, max_size=32)


class Anchored:
    """A log on the chain, whose tree may be any tree that is larger than the last."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._count = 0
        self.log_id = b""

    def anchor(self, size: int, root: bytes) -> None:
        """In a log of its own."""
        self._count += 1
        salt = self._count.to_bytes(32)
        operator = self._contracts.operator.address
        self.log_id = self._contracts.read("logIdOf", operator, salt, name=ANCHORS)
        self._contracts.send("openLog", salt, name=ANCHORS)
        self._contracts.send("anchor", self.log_id, size, root, name=ANCHORS)

    def includes(self, leaf: bytes, index: int, path: list[bytes]) -> bool:
        """The contract's answer."""
        found: bool = self._contracts.read(
            "verifyInclusion", self.log_id, leaf, index, path, name=ANCHORS
        )
        return found


@pytest.fixture(scope="module")
def contracts() -> Iterator[Contracts]:
    """A chain for all the trees."""
    found = Contracts()
    yield found
    found.chain.close()


@pytest.fixture(scope="module")
def anchored(contracts: Contracts) -> Anchored:
    """Nothing yet."""
    return Anchored(contracts)


def proven(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Python's answer."""
    try:
        verify_inclusion(leaf, index, size, path, root)
    except ProofError:
        return False
    return True


@settings(max_examples=12)
@given(data=st.data())
def test_every_proof_of_a_tree_holds_in_both(anchored: Anchored, data: st.DataObject) -> None:
    tree = Tree(data.draw(st.lists(hashes, min_size=1, max_size=300)))
    anchored.anchor(tree.size, tree.root())
    for index in data.draw(st.sets(st.integers(0, tree.size - 1), min_size=1, max_size=8)):
        path = tree.inclusion_proof(index)
        assert proven(tree.leaf(index), index, tree.size, path, tree.root())
        assert anchored.includes(tree.leaf(index), index, path)


@settings(max_examples=30)
@given(data=st.data())
def test_what_one_refuses_the_other_refuses(anchored: Anchored, data: st.DataObject) -> None:
    """A proof that was changed anyhow, and a size and root that are those of no tree."""
    tree = Tree(data.draw(st.lists(hashes, min_size=1, max_size=40)))
    size = data.draw(st.just(tree.size) | st.integers(1, 2**63 - 1))
    root = data.draw(st.just(tree.root()) | hashes)
    anchored.anchor(size, root)
    index = data.draw(st.integers(0, tree.size - 1))
    path = tree.inclusion_proof(index)
    leaf = data.draw(st.just(tree.leaf(index)) | hashes)
    claimed = data.draw(st.just(index) | st.integers(0, tree.size) | st.integers(0, 2**63 - 1))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(path)))
        match data.draw(st.sampled_from(["insert", "remove", "change"])):
            case "insert":
                path.insert(place, data.draw(hashes))
            case "remove":
                del path[place : place + 1]
            case _:
                path[place : place + 1] = [data.draw(hashes)]
    assert anchored.includes(leaf, claimed, path) == proven(leaf, claimed, size, path, root)


def test_no_tree_is_too_small_to_agree_on(anchored: Anchored) -> None:
    """Every leaf of every tree of up to 9 leaves, at every place."""
    for size in range(1, 10):
        tree = Tree(leaf_hash(bytes([n])) for n in range(size))
        anchored.anchor(size, tree.root())
        for index in range(size):
            path = tree.inclusion_proof(index)
            for place in range(size):
                expected = place == index
                assert anchored.includes(tree.leaf(index), place, path) is expected
                assert proven(tree.leaf(index), place, size, path, tree.root()) is expected


@given(entry=st.binary(max_size=200))
@settings(max_examples=12)
def test_an_entry_is_hashed_alike(contracts: Contracts, entry: bytes) -> None:
    assert contracts.read("leafHash", entry, name=ANCHORS) == leaf_hash(entry)
