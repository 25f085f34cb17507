"""Proofs are read quickly where they are alike, and as what they are either way."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from engine.audit import canonical
from engine.audit.entries import Entries, Proofs, read_proof
from engine.audit.merkle import Tree, leaf_hash

SIZE = 70
TREE = Tree(leaf_hash(b"%d" % index) for index in range(SIZE))


def proof(index: int) -> tuple[bytes, ...]:
    return tuple(TREE.inclusion_proof(index))


def written(hashes: tuple[bytes, ...]) -> bytes:
    return canonical.encode([each.hex() for each in hashes])


def either_way(proofs: Proofs, text: bytes) -> Any:
    """What is read; None if it is refused."""
    quickly = proofs.read_quickly(text)
    if quickly is not None:
        return quickly
    try:
        return read_proof(canonical.decode(text))
    except (TypeError, ValueError):
        return None


def edits(text: bytes) -> Iterator[bytes]:
    for at in range(len(text) + 1):
        for byte in b'[]",0aAfg \\':
            yield text[:at] + bytes([byte]) + text[at:]
            yield text[:at] + bytes([byte]) + text[at + 1 :]
        yield text[:at] + text[at + 1 :]


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_each_proof_is_read_as_if_it_stood_alone(seed: int) -> None:
    draw, proofs = random.Random(seed), Proofs()
    orders = (range(SIZE), [draw.randrange(SIZE) for _ in range(300)])
    for index in (each for order in orders for each in order):
        for hashes in (proof(index), proof(index)[draw.randrange(7) :]):
            text = written(hashes)
            assert proofs.read_quickly(text) == (hashes or None)
            assert either_way(proofs, text) == hashes


@pytest.mark.parametrize("before", [6, 7, 8])
def test_behind_any_other_what_is_one_byte_away_is_not_read_for_it(before: int) -> None:
    text, refused = written(proof(7)[:3]), 0
    for edited in edits(text):
        proofs = Proofs()
        assert proofs.read_quickly(written(proof(before)[:3])) == proof(before)[:3]
        found = either_way(proofs, edited)
        if found is None:
            refused += 1
        else:
            assert written(found) == edited
        assert either_way(proofs, text) == proof(7)[:3]
    assert refused > 1_000


def test_what_begins_as_the_last_one_did_is_not_its_end() -> None:
    proofs, text = Proofs(), written(proof(7)[:3])
    assert proofs.read_quickly(written(proof(7)[1:3])) == proof(7)[1:3]
    assert proofs.read_quickly(text.replace(b'","', b'"["', 1)) is None
    assert proofs.read_quickly(text) == proof(7)[:3]


def test_an_entry_whose_proof_is_irregular_is_refused() -> None:
    entry = {"index": 7, "proof": [each.hex() for each in proof(7)], "record": "{}"}
    regular = canonical.encode(entry)
    assert [each.proof for each in Entries([regular] * 2, proven=True)] == [proof(7)] * 2
    for irregular in (
        regular.replace(b'","', b'", "', 1),
        regular.replace(b'["', b'["0', 1),
        regular.replace(entry["proof"][0].encode(), entry["proof"][0].upper().encode()),
        regular.replace(b'"]', b'",7]', 1),
        regular.replace(b'"]', b'"],"x":[]', 1),
    ):
        assert irregular != regular
        with pytest.raises((TypeError, ValueError)):
            list(Entries([regular, irregular], proven=True))
