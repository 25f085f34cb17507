import random
from collections.abc import Callable

import pytest

from engine.audit.merkle import EMPTY_ROOT, SIZE_MAX, Tree, leaf_hash
from engine.audit.proofs import PROOF_HASHES_MAX, ProofError, verify_consistency, verify_inclusion
from tests.audit import rfc6962

TREE_SIZE = 256
LEAVES = [leaf_hash(b"entry %d" % index) for index in range(TREE_SIZE)]
MTH = rfc6962.subtrees(LEAVES)
ROOTS = [rfc6962.root(MTH, size) for size in range(TREE_SIZE + 1)]
TREE = Tree(LEAVES)

MUTATIONS_EACH = 60_000


def accepted(verify: Callable[..., None], *claim: object) -> bool:
    """Whether the claim verifies; anything but ProofError is a failure of the test."""
    try:
        verify(*claim)
    except ProofError:
        return False
    return True


def test_every_inclusion_proof_verifies() -> None:
    for size in range(1, TREE_SIZE + 1):
        for index in range(size):
            proof = rfc6962.path(MTH, index, 0, size)
            verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


def test_every_consistency_proof_verifies() -> None:
    for new_size in range(TREE_SIZE + 1):
        for old_size in range(new_size + 1):
            proof = rfc6962.proof(MTH, old_size, new_size)
            verify_consistency(old_size, ROOTS[old_size], new_size, ROOTS[new_size], proof)


def test_every_wrong_index_is_refused() -> None:
    for size in range(1, 65):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            accepting = [
                claimed
                for claimed in range(size + 2)
                if accepted(verify_inclusion, LEAVES[index], claimed, size, proof, ROOTS[size])
            ]
            assert accepting == [index]


def test_every_pair_of_wrong_consistency_sizes_is_refused() -> None:
    sizes = range(1, 25)
    for old_size in sizes:
        for new_size in range(old_size + 1, 25):
            proof = TREE.consistency_proof(old_size, new_size)
            accepting = [
                (old, new)
                for old in sizes
                for new in sizes
                if old != new
                and accepted(verify_consistency, old, ROOTS[old], new, ROOTS[new], proof)
            ]
            assert accepting == [(old_size, new_size)]


def test_a_root_alone_does_not_bind_its_size() -> None:
    """Why the size must come with the root: exactly the sizes that climb alike are accepted."""
    for size in range(1, 33):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            for claimed in range(1, 40):
                alike = index < claimed and rfc6962.sides(index, claimed) == rfc6962.sides(
                    index, size
                )
                claim = (LEAVES[index], index, claimed, proof, ROOTS[size])
                assert accepted(verify_inclusion, *claim) == alike


def mutate_hashes(rng: random.Random, proof: list[bytes]) -> list[bytes]:
    """One hostile change to the shape or the content of a list of hashes."""
    proof = list(proof)
    spot = rng.randrange(len(proof)) if proof else 0
    start = rng.randrange(0, TREE_SIZE, 8)
    spare = rng.choice([rng.choice(LEAVES), MTH(start, start + 8), rng.randbytes(32), bytes(32)])
    change = rng.randrange(8) if proof else 0
    if change == 0:
        proof.insert(rng.randint(0, len(proof)), spare)
    elif change == 1:
        proof.append(proof[-1])
    elif change == 2:
        del proof[spot]
    elif change == 3:
        del proof[spot:]
    elif change == 4:
        other = rng.randrange(len(proof))
        proof[spot], proof[other] = proof[other], proof[spot]
    elif change == 5:
        proof[spot] = flip(rng, proof[spot])
    elif change == 6:
        proof[spot] = spare
    else:
        proof[spot] = proof[spot][: rng.randrange(32)]
    return proof


def flip(rng: random.Random, data: bytes) -> bytes:
    return (int.from_bytes(data) ^ (1 << rng.randrange(256))).to_bytes(32)


def other_number(rng: random.Random, number: int) -> int:
    near = [number - 1, number + 1, number ^ (1 << rng.randrange(8)), 2 * number, number // 2]
    far = [0, -1, rng.randint(0, TREE_SIZE), 2**63 - 1, 2**63, 2**64 + number]
    return rng.choice(near + far)


def test_mutated_inclusion_proofs_are_refused() -> None:
    rng = random.Random(20240607)
    refused = 0
    for _ in range(MUTATIONS_EACH):
        size = rng.randint(1, TREE_SIZE)
        index = rng.randrange(size)
        leaf, root = LEAVES[index], ROOTS[size]
        proof = TREE.inclusion_proof(index, size)
        change = rng.randrange(8)
        if change == 0:
            index = other_number(rng, index)
        elif change == 1:
            size = rng.choice([size - 1, size + 1, rng.randint(0, TREE_SIZE)]) % (TREE_SIZE + 1)
            root = ROOTS[size]
        elif change == 2:
            leaf = rng.choice([flip(rng, leaf), rng.choice(LEAVES), root])
        elif change == 3:
            root = rng.choice([flip(rng, root), rng.choice(ROOTS), leaf])
        elif change == 4 and proof:
            # An inner node passed off as a leaf: the first step done for the verifier.
            width = 2 - (size % 2 and index == size - 1)
            leaf, index, proof = MTH(index & -2, (index & -2) + width), index // 2, proof[1:]
            size, root = rng.choice([(size, root), ((size + 1) // 2, ROOTS[(size + 1) // 2])])
        else:
            proof = mutate_hashes(rng, proof)
        genuine = (
            0 <= index < size <= TREE_SIZE
            and (leaf, root) == (LEAVES[index], ROOTS[size])
            and proof == rfc6962.path(MTH, index, 0, size)
        )
        claim = (leaf, index, size, proof, root)
        assert accepted(verify_inclusion, *claim) == genuine, claim
        refused += not genuine
    assert refused > 50_000


def test_mutated_consistency_proofs_are_refused() -> None:
    rng = random.Random(20240608)
    refused = 0
    for _ in range(MUTATIONS_EACH):
        new_size = rng.randint(1, TREE_SIZE)
        old_size = rng.randint(0, new_size)
        old_root, new_root = ROOTS[old_size], ROOTS[new_size]
        proof = TREE.consistency_proof(old_size, new_size)
        change = rng.randrange(8)
        if change == 0:
            old_size = other_number(rng, old_size)
            old_root = ROOTS[old_size] if 0 <= old_size <= TREE_SIZE else old_root
        elif change == 1:
            new_size = other_number(rng, new_size)
            new_root = ROOTS[new_size] if 0 <= new_size <= TREE_SIZE else new_root
        elif change == 2:
            old_root = rng.choice([flip(rng, old_root), rng.choice(ROOTS), new_root])
        elif change == 3 and old_size:
            new_root = rng.choice([flip(rng, new_root), rng.choice(ROOTS), old_root])
        elif change == 4:
            old_size, old_root, new_size, new_root = new_size, new_root, old_size, old_root
        else:
            proof = mutate_hashes(rng, proof)
        genuine = (
            0 <= old_size <= new_size <= TREE_SIZE
            and (old_root, new_root) == (ROOTS[old_size], ROOTS[new_size])
            and proof == rfc6962.proof(MTH, old_size, new_size)
        ) or (
            # Every log extends the empty one, whatever its root.
            (old_size, old_root, proof) == (0, EMPTY_ROOT, []) and 0 < new_size <= SIZE_MAX
        )
        claim = (old_size, old_root, new_size, new_root, proof)
        assert accepted(verify_consistency, *claim) == genuine, claim
        refused += not genuine
    assert refused > 50_000


HUGE_SIZES = [2**31, 2**32 + 1, 2**53 - 1, 2**62, 2**62 + 1, 2**63 - 2, 2**63 - 1]


@pytest.mark.parametrize("size", HUGE_SIZES)
def test_trees_too_large_to_build(size: int) -> None:
    mth = rfc6962.equal_subtrees(LEAVES[0])
    root = mth(0, size)
    rng = random.Random(size)
    for number in [1, 2, 2**30, size // 2, size - 1, *(rng.randrange(1, size) for _ in range(20))]:
        path = rfc6962.path(mth, number, 0, size)
        verify_inclusion(LEAVES[0], number, size, path, root)
        assert not accepted(verify_inclusion, LEAVES[0], number, size, path[:-1], root)
        assert not accepted(verify_inclusion, LEAVES[0], number, size, [*path, root], root)
        proof = rfc6962.proof(mth, number, size)
        old_root = mth(0, number)
        verify_consistency(number, old_root, size, root, proof)
        assert not accepted(verify_consistency, number, old_root, size, root, proof[:-1])
        assert not accepted(verify_consistency, number, old_root, size, root, [*proof, root])


PATH = TREE.inclusion_proof(2, 7)
LEAF, ROOT = LEAVES[2], ROOTS[7]


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ((LEAF, 7, 7, PATH, ROOT), "index 7 is not within a tree of 7 leaves"),
        ((LEAF, 0, 0, [], EMPTY_ROOT), "index 0 is not within a tree of 0 leaves"),
        ((LEAF, -1, 7, PATH, ROOT), "index is not an integer"),
        ((LEAF, True, 7, PATH, ROOT), "index is not an integer"),
        ((LEAF, 2.0, 7, PATH, ROOT), "index is not an integer"),
        ((LEAF, "2", 7, PATH, ROOT), "index is not an integer"),
        ((LEAF, 2, -7, PATH, ROOT), "size is not an integer"),
        ((LEAF, 2, None, PATH, ROOT), "size is not an integer"),
        ((LEAF, 2, 2**63, PATH, ROOT), "size is not an integer"),
        ((LEAF, 2, 2**64 + 7, PATH, ROOT), "size is not an integer"),
        ((LEAF[:31], 2, 7, PATH, ROOT), "leaf hash is not 32 bytes"),
        ((LEAF.hex(), 2, 7, PATH, ROOT), "leaf hash is not 32 bytes"),
        ((LEAF, 2, 7, PATH, ROOT + b"\0"), "root is not 32 bytes"),
        ((LEAF, 2, 7, PATH, None), "root is not 32 bytes"),
        ((LEAF, 2, 7, None, ROOT), "not a list of hashes"),
        ((LEAF, 2, 7, b"".join(PATH), ROOT), "not a list of hashes"),
        ((LEAF, 2, 7, iter(PATH), ROOT), "not a list of hashes"),
        ((LEAF, 2, 7, [*PATH[:2], PATH[2].hex()], ROOT), "step is not 32 bytes"),
        ((LEAF, 2, 7, [*PATH[:2], b""], ROOT), "step is not 32 bytes"),
        ((LEAF, 2, 7, [], ROOT), "too short"),
        ((LEAF, 2, 7, PATH[:2], ROOT), "too short"),
        ((LEAF, 2, 7, [*PATH, PATH[0]], ROOT), "too long"),
        ((LEAF, 2, 7, PATH * 1000, ROOT), "too long"),
        ((LEAF, 2, 7, [None] * (PROOF_HASHES_MAX + 1), ROOT), "too long"),
        ((LEAF, 0, 1, [LEAF], LEAF), "too long"),
        ((LEAF, 2, 7, PATH[::-1], ROOT), "another root"),
        ((LEAVES[3], 2, 7, PATH, ROOT), "another root"),
        ((LEAF, 3, 7, PATH, ROOT), "another root"),
    ],
)
def test_malformed_inclusion(claim: tuple[object, ...], reason: str) -> None:
    verify_inclusion(LEAF, 2, 7, tuple(PATH), ROOT)
    with pytest.raises(ProofError, match=reason):
        verify_inclusion(*claim)  # type: ignore[arg-type]


PROOF = TREE.consistency_proof(3, 7)
OLD, NEW = ROOTS[3], ROOTS[7]


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ((0, OLD, 7, NEW, []), "old root is not that of an empty tree"),
        ((0, EMPTY_ROOT, 7, NEW, PROOF), "must be empty"),
        ((0, EMPTY_ROOT, 0, NEW, []), "new root is not that of an empty tree"),
        ((0, OLD, 0, OLD, []), "old root is not that of an empty tree"),
        ((7, NEW, 7, NEW, PROOF), "must be empty"),
        ((7, OLD, 7, NEW, []), "same size has two roots"),
        ((7, NEW, 3, OLD, PROOF), "cannot shrink"),
        ((7, NEW, 0, EMPTY_ROOT, []), "cannot shrink"),
        ((3, OLD, 7, OLD, PROOF), "another new root"),
        ((3, NEW, 7, NEW, PROOF), "another old root"),
        ((4, ROOTS[4], 7, ROOTS[4], TREE.consistency_proof(4, 7)), "another new root"),
        ((3, OLD, 7, NEW, []), "too short"),
        ((4, ROOTS[4], 7, NEW, []), "too short"),
        ((3, OLD, 7, NEW, PROOF[:-1]), "too short"),
        ((3, OLD, 7, NEW, [*PROOF, PROOF[0]]), "too long"),
        ((3, OLD, 7, NEW, PROOF * 1000), "too long"),
        ((3, OLD, 7, NEW, None), "not a list of hashes"),
        ((3, OLD, 7, NEW, [*PROOF[:-1], 7]), "step is not 32 bytes"),
        ((3, OLD[:31], 7, NEW, PROOF), "old root is not 32 bytes"),
        ((3, OLD, 7, NEW.hex(), PROOF), "new root is not 32 bytes"),
        ((-3, OLD, 7, NEW, PROOF), "old size is not an integer"),
        ((3, OLD, 2**63, NEW, PROOF), "new size is not an integer"),
        ((True, ROOTS[1], 7, NEW, TREE.consistency_proof(1, 7)), "old size is not an integer"),
    ],
)
def test_malformed_consistency(claim: tuple[object, ...], reason: str) -> None:
    verify_consistency(3, OLD, 7, NEW, tuple(PROOF))
    with pytest.raises(ProofError, match=reason):
        verify_consistency(*claim)  # type: ignore[arg-type]
