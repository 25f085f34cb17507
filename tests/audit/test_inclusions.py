"""Many proofs under one root cost less than each alone, and nothing else is accepted."""

import random
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest

from engine.audit import proofs
from engine.audit.merkle import Tree, leaf_hash, node_hash
from engine.audit.proofs import Inclusions, ProofError, verify_inclusion

LEAVES = [leaf_hash(b"entry %d" % index) for index in range(300)]
TREE = Tree(LEAVES)
Claim = tuple[bytes, int, tuple[bytes, ...]]


def good(index: int, size: int) -> Claim:
    return LEAVES[index], index, tuple(TREE.inclusion_proof(index, size))


def outcome(tree: Inclusions | None, claim: Claim, size: int) -> str:
    """Empty if the claim is accepted; by all of the algorithm if there is no `tree`."""
    leaf, index, proof = claim
    try:
        if tree is None:
            verify_inclusion(leaf, index, size, proof, TREE.root(size))
        else:
            tree.verify(leaf, index, proof)
    except ProofError as error:
        return str(error)
    return ""


def wrong(claim: Claim, size: int) -> Iterator[Claim]:
    """What is nearly that claim."""
    leaf, index, proof = claim
    yield leaf_hash(b"x"), index, proof
    yield leaf[:-1], index, proof
    for other in range(-1, size + 1):
        yield leaf, other, proof
    for place in range(len(proof)):
        node = proof[place]
        for changed in (node[:-1] + bytes([node[-1] ^ 1]), node[1:], node + b"\0", leaf):
            yield leaf, index, (*proof[:place], changed, *proof[place + 1 :])
        yield leaf, index, proof[:place] + proof[place + 1 :]
        yield leaf, index, (*proof[:place], node, *proof[place:])
    for length in range(len(proof)):
        yield leaf, index, proof[:length]
    yield leaf, index, (*proof, leaf)
    yield leaf, index, proof[::-1]


@pytest.mark.parametrize("size", range(1, 20))
def test_behind_any_other_proof_each_is_judged_as_if_it_stood_alone(size: int) -> None:
    for first, index in product(range(size), repeat=2):
        claims = [good(index, size), *wrong(good(index, size), size)]
        # What is right for another leaf is the likeliest forgery here.
        claims += [(LEAVES[index], index, good(other, size)[2]) for other in range(size)]
        for claim in claims:
            tree = Inclusions(size, TREE.root(size))
            tree.verify(*good(first, size))
            assert outcome(tree, claim, size) == outcome(None, claim, size)
            assert outcome(tree, good(index, size), size) == ""


@pytest.mark.parametrize("size", range(2, 10))
def test_no_proof_is_put_together_of_others(size: int) -> None:
    """Near the right edge a path passes over levels that the one before it had."""
    for first, second, index in product(range(size), repeat=3):
        begins, leaf = good(index, size)[2], LEAVES[index]
        ends = {good(other, size)[2] for other in (first, second)}
        for end, begun in product(ends, range(len(begins) + 1)):
            for ended in range(len(end) + 1):
                tree = Inclusions(size, TREE.root(size))
                tree.verify(*good(first, size))
                tree.verify(*good(second, size))
                claim = leaf, index, begins[:begun] + end[ended:]
                assert outcome(tree, claim, size) == outcome(None, claim, size)


@pytest.mark.parametrize("leaf", [None, "x" * 32, bytearray(32), b"x"])
def test_what_is_no_hash_is_called_that(leaf: Any) -> None:
    tree = Inclusions(8, TREE.root(8))
    tree.verify(*good(3, 8))
    with pytest.raises(ProofError, match="the leaf hash is not 32 bytes"):
        tree.verify(leaf, 4, good(4, 8)[2])


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_and_between_forgeries_each_is_judged_as_if_it_stood_alone(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.choice((256, 257, 255, draw.randrange(1, 301)))
    tree = Inclusions(size, TREE.root(size))
    seen: list[Claim] = [good(draw.randrange(size), size)]
    for _ in range(600):
        near = max(0, min(size - 1, seen[-1][1] + draw.randrange(-2, 4)))
        claim = good(draw.choice((near, draw.randrange(size))), size)
        if draw.random() < 0.4:
            claim = draw.choice([*wrong(claim, size)])
        elif draw.random() < 0.2:
            claim = claim[0], claim[1], draw.choice(seen)[2]
        assert outcome(tree, claim, size) == outcome(None, claim, size)
        if 0 <= claim[1] < size:
            seen.append(claim)


def hashes(order: Sequence[int], size: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many nodes are hashed for the proofs of these leaves."""
    counted = 0

    def counting(left: bytes, right: bytes) -> bytes:
        nonlocal counted
        counted += 1
        return node_hash(left, right)

    tree = Inclusions(size, TREE.root(size))
    with monkeypatch.context() as patched:
        patched.setattr(proofs, "node_hash", counting)
        for index in order:
            tree.verify(*good(index, size))
    return counted


@pytest.mark.parametrize("size", [256, 257, 300])
def test_neighbours_cost_one_hash_each(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashes(range(size), size, monkeypatch) <= size + 3 * size.bit_length()
    alone = sum(len(good(index, size)[2]) for index in range(size))
    assert alone > 7 * size
