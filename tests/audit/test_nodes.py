"""A proof is read quickly only if it is canonical, whatever was read before it."""

from collections.abc import Iterator

from engine.audit import canonical
from engine.audit.entries import Nodes
from engine.audit.merkle import Tree, leaf_hash

TREE = Tree(leaf_hash(b"entry %d" % index) for index in range(13))


def proof(index: int) -> tuple[bytes, ...]:
    return tuple(TREE.inclusion_proof(index))


def text(index: int) -> str:
    return canonical.encode([node.hex() for node in proof(index)]).decode()


def nearly(whole: str) -> Iterator[str]:
    """What has one character more, or fewer, or another; or one hash more or fewer."""
    for at in range(len(whole)):
        yield whole[:at] + whole[at + 1 :]
        for character in '0aAg ",[]{\\':
            yield whole[:at] + character + whole[at:]
            yield whole[:at] + character + whole[at + 1 :]
    for at in range(0, len(whole), 67):
        yield whole[:at] + whole[at + 67 :]
        yield whole[: at + 67] + whole[at:]


def test_behind_any_other_each_is_read_as_it_is() -> None:
    for before in range(TREE.size):
        for index in range(TREE.size):
            nodes = Nodes()
            assert nodes.read(text(before)) == proof(before)
            assert nodes.read(text(index)) == proof(index)


def test_nothing_is_read_but_the_canonical_form() -> None:
    nodes = Nodes()
    for before, index in ((5, 6), (11, 12), (12, 3), (4, 4)):
        for changed in nearly(text(index)):
            nodes.read(text(before))
            found = nodes.read(changed)
            if found is not None:
                assert canonical.encode([node.hex() for node in found]).decode() == changed
                assert {len(node) for node in found} == {32}
    assert nodes.read("[]") is None


def test_a_proof_that_is_longer_than_any_is_not_compared_with_others() -> None:
    """Each comparison would copy the rest of it, and that has no end."""
    nodes = Nodes()
    longest = [leaf_hash(b"%d" % number) for number in range(63)]
    assert nodes.read(canonical.encode([node.hex() for node in longest]).decode()) == tuple(longest)
    longer = [*longest, leaf_hash(b"")]
    assert nodes.read(canonical.encode([node.hex() for node in longer]).decode()) is None
    assert nodes.proof([node.hex() for node in longer]) == tuple(longer)
