"""A chain that takes back what it said: what was tightened stays tight, until it is sure."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.chain.sender import SignedTransaction
from engine.errors import Conflict, Unavailable
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until, wait_until
from tests.ledger.oracle import query
from tests.sessions.hands import discrepancies
from tests.sessions.killed_engine import MOMENTS
from tests.sessions.seen import events
from tests.world import NO_LIMITS, WORKSPACE, World

CONFIRMATIONS = 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that can be rewritten."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def cautious(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    """An installation on it, in which a registration counts after three more blocks."""
    with anvil.world(tmp_path / "data", confirmations=CONFIRMATIONS) as opened:
        yield opened


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def code(world: World, view: SessionView) -> str:
    """What a payment of one dollar is answered now."""
    return str(world.pay(view, 1).decision["code"])


def registration(
    anvil: AnvilWithContracts, view: SessionView, *, right: bool, nonce: int | None = None
) -> SignedTransaction:
    """The operator's transaction that registers the session: as it was signed, or without limits.

    The second is what a thief of the operator's key would send; no owner signed it.
    """
    grant, signature = view.grant, view.owner_signature
    if not right:
        grant, signature = replace(grant, limits=NO_LIMITS, salt=b"\x66" * 32), None
    data = contracts.registering(grant, view.public_key, signature)
    return sender.sign(
        anvil.gateway, anvil.operator, to=anvil.deployed.registry, data=data, nonce=nonce
    )


def mismatched(
    anvil: AnvilWithContracts, world: World
) -> tuple[SessionView, SignedTransaction, SignedTransaction]:
    """A session whose registration is wrong; that one, and the right one with the same nonce."""
    view = world.consent(world.create(), wait_s=0)
    right = registration(anvil, view, right=True)
    wrong = registration(anvil, view, right=False, nonce=right.nonce)
    mined(anvil, wrong)
    world.engine.tick()
    assert (state(world, view), code(world, view)) == ("mismatch", "PARAMETERS_MISMATCH")
    return view, right, wrong


def mined(anvil: AnvilWithContracts, signed: SignedTransaction) -> None:
    anvil.gateway.send_raw(signed.raw)
    wait_until(lambda: anvil.gateway.receipt(signed.hash) is not None)
    receipt = anvil.gateway.receipt(signed.hash)
    assert receipt is not None
    assert receipt.succeeded


def replaced(anvil: AnvilWithContracts, *instead: SignedTransaction, depth: int = 1) -> None:
    """As many blocks as before, but these transactions in the first of the new ones."""
    anvil.rpc("anvil_reorg", depth, [["0x" + signed.raw.hex(), 0] for signed in instead])


# Wrong parameters on the chain


def test_a_right_registration_in_place_of_a_wrong_one_counts_when_it_is_confirmed(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    """In one reading the wrong one goes and the right one comes."""
    view, right, _ = mismatched(anvil, cautious)
    replaced(anvil, right)
    for _ in range(CONFIRMATIONS):
        cautious.engine.tick()
        [event] = events(cautious.engine, "SessionRegistered", view)
        assert event.args["grantHash"] == view.grant_hash
        assert state(cautious, view) != "active"
        assert code(cautious, view) != "ALLOWED"
        anvil.mine()
    cautious.engine.tick()
    assert (state(cautious, view), code(cautious, view)) == ("active", "ALLOWED")


def test_when_a_wrong_registration_is_gone_the_right_one_is_sent_and_confirmed(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    view, _, _ = mismatched(anvil, cautious)
    replaced(anvil)
    assert events(cautious.engine, "SessionRegistered", view) == []
    cautious.engine.tick()
    assert code(cautious, view) == "SESSION_NOT_ANCHORED"
    tick_until(cautious, lambda: len(events(cautious.engine, "SessionRegistered", view)) == 1)
    for _ in range(CONFIRMATIONS):
        cautious.engine.tick()
        assert code(cautious, view) == "SESSION_NOT_ANCHORED"
        anvil.mine()
    cautious.engine.tick()
    [event] = events(cautious.engine, "SessionRegistered", view)
    assert event.args["grantHash"] == view.grant_hash
    assert code(cautious, view) == "ALLOWED"


def test_a_wrong_registration_in_place_of_the_right_one_counts_at_first_sight(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    view = cautious.consent(cautious.create(), wait_s=0)
    right = registration(anvil, view, right=True)
    wrong = registration(anvil, view, right=False, nonce=right.nonce)
    mined(anvil, right)
    anvil.mine(CONFIRMATIONS)
    cautious.engine.tick()
    assert code(cautious, view) == "ALLOWED"
    replaced(anvil, wrong, depth=CONFIRMATIONS + 1)
    cautious.engine.tick()
    assert code(cautious, view) == "PARAMETERS_MISMATCH"
    [event] = events(cautious.engine, "SessionRegistered", view)
    assert event.args["grantHash"] != view.grant_hash


def test_nothing_but_the_chain_lifts_a_mismatch(anvil: AnvilWithContracts, cautious: World) -> None:
    view, _, wrong = mismatched(anvil, cautious)
    with pytest.raises(Conflict, match="mismatch"):
        cautious.engine.consent(WORKSPACE, view.id, bytes(65))
    assert view.owner_signature is not None
    cautious.engine.consent(WORKSPACE, view.id, view.owner_signature)
    assert code(cautious, view) == "PARAMETERS_MISMATCH", "the consent was given again"
    anvil.mine(2 * CONFIRMATIONS)
    cautious.engine.tick()
    assert code(cautious, view) == "PARAMETERS_MISMATCH", "the wrong one is confirmed"
    cautious.reopen()
    cautious.engine.tick()
    assert code(cautious, view) == "PARAMETERS_MISMATCH", "it was started anew"
    for _ in range(2):
        cautious.engine.tick()
    assert [each.kind for each in discrepancies(cautious, view)] == ["parameters_differ"]
    raw = [["0x" + wrong.raw.hex(), 1]]
    anvil.rpc("anvil_reorg", 2 * CONFIRMATIONS + 1, raw)
    cautious.engine.tick()
    assert code(cautious, view) == "PARAMETERS_MISMATCH", "it moved to another block"
    assert cautious.engine.revoke_session(WORKSPACE, view.id, by="somebody").state == "revoked"
    assert code(cautious, view) == "SESSION_REVOKED", "only tighter"


# Revoked for ever


def stays_revoked(anvil: AnvilWithContracts, world: World, view: SessionView) -> None:
    """Through confirmations, a restart, and more of both."""
    for _ in range(2):
        world.engine.tick()
        assert (state(world, view), code(world, view)) == ("revoked", "SESSION_REVOKED")
        anvil.mine(CONFIRMATIONS + 1)
        world.engine.tick()
        assert (state(world, view), code(world, view)) == ("revoked", "SESSION_REVOKED")
        world.reopen()


def owner_revokes(anvil: AnvilWithContracts, view: SessionView) -> None:
    data = contracts.revoking(view.grant, view.token_id)
    anvil.transact(anvil.owner, to=anvil.deployed.registry, data=data)


def active(anvil: AnvilWithContracts, world: World) -> SessionView:
    view = world.consent(world.create(), wait_s=0)
    mined(anvil, registration(anvil, view, right=True))
    anvil.mine(CONFIRMATIONS)
    world.engine.tick()
    assert code(world, view) == "ALLOWED"
    return view


def test_a_wrong_registration_after_the_revocation_changes_nothing(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    view = cautious.consent(cautious.create(), wait_s=0)
    cautious.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    mined(anvil, registration(anvil, view, right=False))
    stays_revoked(anvil, cautious, view)
    other = active(anvil, cautious)
    assert code(cautious, other) == "ALLOWED"
    assert cautious.engine.ready()["faults"] == []


@pytest.mark.parametrize("instead", ["nothing", "the wrong one", "the right one"])
def test_what_comes_in_place_of_registration_and_revocation_changes_nothing(
    anvil: AnvilWithContracts, cautious: World, instead: str
) -> None:
    """Both go together, and a registration comes alone, or none."""
    view = cautious.consent(cautious.create(), wait_s=0)
    right = registration(anvil, view, right=True)
    wrong = registration(anvil, view, right=False, nonce=right.nonce)
    new = {"nothing": [], "the wrong one": [wrong], "the right one": [right]}[instead]
    mined(anvil, right)
    owner_revokes(anvil, view)
    cautious.engine.tick()
    assert code(cautious, view) == "SESSION_REVOKED"
    with anvil.idle():
        replaced(anvil, *new, depth=2)
        assert events(cautious.engine, "SessionRevoked", view) == []
        assert len(events(cautious.engine, "SessionRegistered", view)) == len(new)
        cautious.engine.tick()
        assert code(cautious, view) == "SESSION_REVOKED"
    stays_revoked(anvil, cautious, view)


def test_a_revocation_that_left_the_chain_is_not_undone_and_is_put_back(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    """A revoked session stays revoked: its disappearance, confirmed or not, frees nothing."""
    view = active(anvil, cautious)
    owner_revokes(anvil, view)
    cautious.engine.tick()
    assert code(cautious, view) == "SESSION_REVOKED"
    replaced(anvil)
    anvil.rpc("anvil_setBalance", anvil.operator.address, "0x0")  # so that we cannot put it back
    try:
        stays_revoked(anvil, cautious, view)
        assert events(cautious.engine, "SessionRevoked", view) == []
    finally:
        anvil.rpc("anvil_setBalance", anvil.operator.address, hex(10**22))
    tick_until(cautious, lambda: len(events(cautious.engine, "SessionRevoked", view)) == 1)
    [event] = events(cautious.engine, "SessionRevoked", view)
    assert event.args["by"] == anvil.operator.address
    assert code(cautious, view) == "SESSION_REVOKED"


# Killed before it was heard


@pytest.fixture(scope="module")
def graves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories of engines that were killed after the owner had revoked on the chain."""
    directory = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.sessions.killed_engine", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_revocation_that_a_killed_engine_did_not_hear_of_holds_from_the_start(
    graves: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = graves / moment / "ledger.sqlite3"
    [(session_id, before)] = query(file, "SELECT id, state FROM sessions")
    assert before == "active", "it was not heard"

    def no_answer(_chain: EmbeddedChain) -> None:
        raise ChainUnavailable("no answer")

    with monkeypatch.context() as line:
        line.setattr(EmbeddedChain, "head", no_answer)
        world = World(graves / moment)
        view = world.engine.sessions.get(WORKSPACE, session_id)
        with pytest.raises(Unavailable) as refused:
            world.pay(view, 1)
        assert refused.value.code == "chain_unavailable"
        world.engine.close()
    world = World(graves / moment)
    try:
        assert code(world, view) == "SESSION_REVOKED"
        assert state(world, view) == "revoked"
        assert len(events(world.engine, "SessionRevoked", view)) == 1
    finally:
        world.engine.close()
