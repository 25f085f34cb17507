"""Another key is another log: what an operator does whose log's key was stolen (decision 38), and
what the thief can make of the key afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from engine.audit.checkpoint import Checkpoint, NoteError, open_note, sign
from engine.audit.evidence import render_evidence, seal_message
from engine.audit.verify import Report, Verdict, verify
from engine.evidence.chain_view import GatewayView
from engine.fsck.check import check
from tests.evidence.story import Document, failed, read
from tests.world import WORKSPACE, World


@dataclass
class Succession:
    """The log of before, whose key is stolen and whose sessions are over, and the one after it."""

    old: World
    new: World
    old_file: bytes
    new_file: bytes

    @property
    def stolen(self) -> Ed25519PrivateKey:
        return self.old.engine.deployment.log_key

    def verify(self, file: bytes) -> Report:
        """As an auditor who knows the registry, which is the same before and after."""
        deployment = self.old.engine.deployment
        view = GatewayView(self.old.engine.gateway)
        return verify(file, view, registry=deployment.registry, anchors=deployment.anchors)

    def sealed_by_thief(self, document: Document) -> bytes:
        content = {name: value for name, value in document.items() if name != "signature"}
        return render_evidence(content, self.stolen.sign(seal_message(content)))


def spent(world: World) -> tuple[Any, bytes]:
    """A session with a payment that is over and anchored, and its evidence."""
    view = world.session(mint_pkp=True)
    world.pay(view, 5)
    world.engine.revoke_session(WORKSPACE, view.id, by="an operator")
    for _ in range(3):
        world.engine.tick()
    world.engine.anchor()
    world.engine.tick()
    return view, world.engine.evidence(WORKSPACE, view.id)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Succession]:
    old = World(tmp_path_factory.mktemp("old") / "data")
    _, old_file = spent(old)
    rpc = old.engine.serve_embedded_chain()
    assert rpc is not None
    deployment = old.engine.deployment
    new = World(
        tmp_path_factory.mktemp("new") / "data",
        chain=rpc.url,
        registry=deployment.registry,
        tokens=[old.engine.token("USDC", None)],
        operator_key=SecretStr("0x" + deployment.operator.key.hex()),
    )
    _, new_file = spent(new)
    yield Succession(old, new, old_file, new_file)
    new.engine.close()
    rpc.stop()
    old.engine.close()


def test_the_old_evidence_verifies_beside_the_new_under_one_registry(told: Succession) -> None:
    before, after = told.old.engine.deployment, told.new.engine.deployment
    assert before.registry == after.registry
    assert before.log_id != after.log_id
    assert before.log_verifier_key != after.log_verifier_key
    for file in (told.old_file, told.new_file):
        assert told.verify(file).verdict is Verdict.VERIFIED
    assert check(Path(told.new.store), chain=None).clean


def test_the_stolen_key_signs_nothing_of_the_new_log(told: Succession) -> None:
    document = read(told.new_file)
    report = told.verify(told.sealed_by_thief(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "seal")

    thief = told.old.engine.deployment
    head = open_note(document["checkpoint"], document["log"]["verifier_key"])
    forged = Checkpoint(thief.origin, head.size, head.root)
    log = document["log"] | {"verifier_key": thief.log_verifier_key, "origin": thief.origin}
    note = sign(forged, thief.origin, told.stolen)
    report = told.verify(told.sealed_by_thief(document | {"log": log, "checkpoint": note}))
    assert report.verdict is Verdict.TAMPERED
    assert "the log was opened for another verifier key" in report.reason
    with pytest.raises(NoteError, match="not signed by"):
        open_note(note, document["log"]["verifier_key"])


def test_the_stolen_key_adds_nothing_to_the_old_log(told: Succession) -> None:
    """Only the account that opened it can anchor it, and that is another key."""
    document = read(told.old_file)
    head = open_note(document["checkpoint"], document["log"]["verifier_key"])
    longer = sign(Checkpoint(head.origin, head.size + 1, b"\x07" * 32), head.origin, told.stolen)
    report = told.verify(told.sealed_by_thief(document | {"checkpoint": longer}))
    assert report.verdict is Verdict.TAMPERED
    assert f"no anchor of size {head.size + 1} is on the chain" in report.reason

    # A record that was anchored is shown as if it were not, and another one in its place.
    last = document["records"].pop()
    tail = [{"index": last["index"] + 100, "record": last["record"]}]
    report = told.verify(told.sealed_by_thief(document | {"tail": tail}))
    assert report.verdict is Verdict.PENDING
    assert report.reason == "tail: the last record is not anchored yet"
