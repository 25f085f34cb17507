"""An operator that anchored two histories of its log: whichever it shows, the chain has both.

It holds the log's key and the anchorer's, so every signature of it is good.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from engine.audit.chain import Anchoring
from engine.audit.checkpoint import Checkpoint, sign
from engine.audit.evidence import render_evidence, seal_message
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.verify import Report, Verdict, verify
from engine.chain import contracts, sender
from engine.db.tables import Record, table
from engine.evidence.chain_view import GatewayView
from engine.sessions.session import SessionView
from tests.evidence.story import (
    Document,
    Snapshot,
    Story,
    failed,
    leaf_of,
    read,
    replaced,
    story,
    told_anchors,
)
from tests.world import WORKSPACE, World

Change = Callable[[Document], object]


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


class Forger:
    """Anchors what it likes on a real chain, and seals what fits it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deployment = world.engine.deployment

    def verify(self, file: bytes) -> Report:
        view = GatewayView(self.world.engine.gateway)
        return verify(file, view, registry=self.deployment.registry)

    def file(self, view: SessionView) -> bytes:
        return self.world.engine.evidence(WORKSPACE, view.id)

    def log(self) -> list[bytes]:
        records = table(Record)
        query = sa.select(records.c.body).order_by(records.c.id)
        with self.world.engine.database.reading() as connection:
            return [bytes(raw) for raw in connection.execute(query).scalars()]

    def anchor(self, tree: Tree) -> None:
        deployment, gateway = self.deployment, self.world.engine.gateway
        data = contracts.call_data(
            contracts.ANCHOR_REGISTRY, "anchor", deployment.log_id, tree.size, tree.root()
        )
        tx_hash = sender.send(gateway, deployment.operator, to=deployment.anchors, data=data)
        receipt = gateway.receipt(tx_hash)
        assert receipt is not None
        assert receipt.succeeded

    def without_its_last_payment(self, file: bytes, log: list[bytes]) -> bytes:
        """Anchor a log in which the session's last payment never was; return the file of it.

        Noise takes its place, so that every size is as it was.
        """
        document = read(file)
        kept = document["records"][:-2]
        forged = list(log)
        for entry in document["records"][-2:]:
            forged[entry["index"]] = b"noise"
        tree = Tree([leaf_of(raw) for raw in (*forged, b"more")])
        self.anchor(tree)
        origin, key = self.deployment.origin, self.deployment.log_key
        document["checkpoint"] = sign(Checkpoint(origin, tree.size, tree.root()), origin, key)
        for entry in kept:
            entry["proof"] = [node.hex() for node in tree.inclusion_proof(entry["index"])]
        sizes = [found.size for found in self.anchorings()]
        proofs = [tree.consistency_proof(*pair) for pair in pairwise(sizes)]
        document |= {
            "records": kept,
            "tail": [],
            "anchors": told_anchors(*self.anchorings()),
            "consistency": [[node.hex() for node in proof] for proof in proofs],
        }
        content = {name: value for name, value in document.items() if name != "signature"}
        return render_evidence(content, key.sign(seal_message(content)))

    def anchorings(self) -> list[Anchoring]:
        view = GatewayView(self.world.engine.gateway)
        return list(view.anchorings(self.deployment.anchors, self.deployment.log_id))


@pytest.fixture
def forger(world: World) -> Forger:
    return Forger(world)


def test_a_payment_that_was_anchored_cannot_be_left_out_of_a_forked_log(forger: Forger) -> None:
    world = forger.world
    view = world.session(mint_pkp=True)
    world.pay(view, 5)
    world.pay(view, 6)
    world.engine.anchor()
    honest = forger.file(view)
    assert forger.verify(honest).verdict is Verdict.VERIFIED
    report = forger.verify(forger.without_its_last_payment(honest, forger.log()))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")
    assert "is not shown to be the beginning of the one of size" in report.reason


def test_what_was_anchored_before_the_registration_is_not_compared_and_the_file_says_so(
    told: Story,
) -> None:
    """Those anchors cannot hold a payment of the session: none was allowed before it."""
    registered = {
        which: told.verify(getattr(told, which)).checks[3].reason for which in ("small", "full")
    }
    assert "in block 8," in registered["small"]
    assert "in block 11," in registered["full"]
    first, *others = told.anchorings
    assert first.block_number == 9
    chain = told.anchored(Anchoring(first.size, b"\x07" * 32, 9), *others)
    assert told.verify(told.full, chain).verdict is Verdict.VERIFIED
    assert told.verify(told.small, chain).verdict is Verdict.TAMPERED
    said = (
        "Anchors older than the registration or newer than the file's "
        "are not compared with the file."
    )
    assert said in read(told.full)["not_proven"]


def test_a_fork_that_was_healed_is_still_on_the_chain(told: Story) -> None:
    """One root of another history among many of this one."""
    first, second, third = told.anchorings
    forked = Anchoring(second.size, b"\x07" * 32, second.block_number)
    chain = told.anchored(first, forked, third)
    for file in (told.small, told.full, told.unsigned):
        report = told.verify(file, chain)
        assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")


def test_an_anchor_that_was_hidden_from_the_proofs_is_missed(told: Story) -> None:
    """The operator shows a proof that skips the anchor of the other history."""
    first, second, third = told.anchorings
    tree = Tree([leaf_of(raw) for raw in told.log])
    forked = Anchoring(second.size + 1, b"\x07" * 32, second.block_number)
    chain = told.anchored(first, second, forked, third)
    report = told.verify(told.small, chain)
    assert report.reason == (
        "anchor: 2 consistency proofs, but 4 anchors since the session's registration"
    )
    document = read(told.small)
    document["consistency"].append([n.hex() for n in tree.consistency_proof(30)])
    report = told.verify(told.seal(document), chain)
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")


def edit(change: Callable[[list[Any]], object]) -> Change:
    return lambda document: change(document["consistency"])


def other_hash(proofs: list[Any]) -> None:
    node = proofs[0][0]
    proofs[0][0] = ("0" if node[0] != "0" else "1") + node[1:]


PROOFS: list[tuple[str, Change]] = [
    ("all are missing", edit(lambda proofs: proofs.clear())),
    ("the first is missing", edit(lambda proofs: proofs.pop(0))),
    ("the last is missing", edit(lambda proofs: proofs.pop())),
    ("one too many", edit(lambda proofs: proofs.append([]))),
    ("one is there twice", edit(lambda proofs: proofs.append(proofs[0]))),
    ("in another order", edit(lambda proofs: proofs.reverse())),
    ("one is empty", edit(lambda proofs: proofs[1].clear())),
    ("one is cut", edit(lambda proofs: proofs[0].pop())),
    ("one is longer", edit(lambda proofs: proofs[1].append("00" * 32))),
    ("one hash is another", edit(other_hash)),
    ("its hashes are in another order", edit(lambda proofs: proofs[1].reverse())),
    ("one is endless", edit(lambda proofs: proofs[0].extend(["00" * 32] * 100))),
]


@pytest.mark.parametrize("change", [a[1] for a in PROOFS], ids=[a[0] for a in PROOFS])
def test_a_consistency_proof_that_is_none_is_tampering(told: Story, change: Change) -> None:
    document = read(told.small)
    assert [len(proof) for proof in document["consistency"]] == [3, 3]
    change(document)
    report = told.verify(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")


def test_consistency_proofs_of_no_anchor_are_tampering(told: Story) -> None:
    document = read(told.small)
    entries = [*document["records"], *document["tail"]]
    document |= {"checkpoint": None, "records": []}
    document["tail"] = [{"index": e["index"], "record": e["record"]} for e in entries]
    report = told.verify(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")
    document["consistency"] = []
    report = told.verify(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")
    document["anchors"] = []
    assert told.verify(told.seal(document)).verdict is Verdict.PENDING


def test_the_anchors_that_bound_the_session_are_counted(told: Story) -> None:
    counts = {}
    for which in ("small", "unsigned", "full"):
        report = told.verify(getattr(told, which))
        counts[which] = report.checks[6].reason.rpartition("; ")[2]
    assert counts == {
        "small": "of one log with 2 older anchors",
        "unsigned": "of one log with 1 older anchor",
        "full": "of one log with 1 older anchor",
    }


def registered_in(told: Story, block_number: int) -> Snapshot:
    """The small session, registered in another block."""
    token = bytes.fromhex(read(told.small)["session"]["token_id"])
    found = told.chain.registrations[told.registry, token]
    assert found is not None
    moved = replace(found, block_number=block_number)
    return replaced(told.chain, registrations={(told.registry, token): moved})


def test_a_registration_that_a_reorganisation_moved_on_makes_no_honest_file_forged(
    told: Story,
) -> None:
    """The file then proves more than is asked for."""
    for block in range(7, told.last_block + 1):
        report = told.verify(told.small, registered_in(told, block))
        same = read(told.small)["registration"]["block_number"] == block
        assert failed(report) == ("" if same else "registration")
        assert report.verdict is (Verdict.VERIFIED if same else Verdict.PENDING)
        assert report.checks[6].verdict is Verdict.VERIFIED


def test_a_file_between_two_anchors_proves_what_was_before_and_notes_what_came_after(
    forger: Forger,
) -> None:
    world = forger.world
    view = world.session(mint_pkp=True)
    files = []
    for dollars in range(1, 6):
        world.pay(view, dollars)
        world.engine.anchor()
        files.append(forger.file(view))
    for place, file in enumerate(files):
        assert len(read(file)["consistency"]) == place
        assert forger.verify(file).verdict is Verdict.VERIFIED
    forger.anchor(Tree([leaf_hash(bytes([n])) for n in range(100)]))
    report = forger.verify(files[-1])
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[6].reason.endswith("; 1 newer anchor not in this file")


def test_the_proofs_begin_with_the_registration(told: Story) -> None:
    """What the log did before it costs the file nothing."""
    counts = {w: len(read(getattr(told, w))["consistency"]) for w in ("small", "unsigned", "full")}
    assert counts == {"small": 2, "unsigned": 1, "full": 1}
